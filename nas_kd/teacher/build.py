"""Building of the network that a user names, with its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from nas_kd.config.hub import at_home
from nas_kd.config.paths import transformers_about
from nas_kd.errors import SettingError
from nas_kd.nn.static import StaticNet
from nas_kd.nn.text import TextNet
from nas_kd.teacher.checkpoint import Nest, read_nests
from nas_kd.teacher.plan import Plan, plan_of
from nas_kd.teacher.weights import first_channels, fit_of, load_fit, other_classes


@dataclass(frozen=True)
class Built:
    """A network and its properties.

    Args:
        num_classes: number of logits; None if only a forward pass can tell.
        normalisation: mean and std that it was trained with; None if unknown.
        noted: whether its normalisation was written down with its weights, not assumed from its name.
        trained: whether its weights are known to be trained ones, all but those of `heads`.
        heads: modules with new weights, because the trained ones have other classes.
        notes: how a checkpoint was read, a line each.
    """

    module: nn.Module
    name: str
    num_classes: int | None
    in_chans: int
    normalisation: tuple[Sequence[float], Sequence[float]] | None
    noted: bool = False
    trained: bool = False
    heads: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def build(
    model: str | Path | nn.Module,
    *,
    checkpoint: str | Path | None = None,
    num_classes: int | None = None,
    in_chans: int | None = None,
    pretrained: bool = False,
    resolution: int | None = None,
    new_head: bool = False,
) -> Built:
    """Build a network and load its weights; arguments and errors are those of `load_teacher`.

    With ``new_head``, a checkpoint with another number of classes gets a new classifier.
    """
    if checkpoint is not None and pretrained:
        hint = "omit teacher.pretrained"
        raise SettingError("teacher.pretrained", True, "false if teacher.checkpoint is set", hint)
    folder = None if isinstance(model, nn.Module) else at_home("teacher.model", model)
    if folder is not None and transformers_about(folder) is not None:
        return _text(str(model), folder, checkpoint, pretrained, num_classes, new_head)
    plan = plan_of(model, pretrained, resolution)
    nests, saved = read_nests(checkpoint) if checkpoint is not None else ([], {})
    classes = num_classes if new_head else check_classes(nests, plan.classifier, num_classes)
    chans = plan.in_chans or in_chans or 3
    module = plan.build(classes, chans)
    heads: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    if checkpoint is not None:
        module, chans = _refit(plan, module, nests, classes, chans, in_chans)
        loaded = load_fit(module, fit_of(module, nests), checkpoint, plan.name, new_head=new_head)
        heads, notes = loaded.heads, loaded.notes
    elif pretrained and num_classes is not None:
        heads = _new_heads(module, num_classes)
    found = _classes(module)
    if num_classes is not None and found not in (None, num_classes):
        expected = f"{found}, the number of classes of {plan.name}"
        hint = "use a teacher trained on these classes: `nas-kd teacher` fine-tunes one"
        raise SettingError("teacher.num_classes", num_classes, expected, hint)
    if isinstance(module, StaticNet):
        chans = module.layers_spec[0]["in"]
    elif plan.foreign and not (in_chans is not None and isinstance(model, nn.Module)):
        chans = _channels_of(module) or chans
    normalisation = _normalisation(plan, saved, checkpoint is not None)
    if new_head and isinstance(module, TextNet):
        module.forget_names()
    if new_head:
        for head in heads:  # it answers chance; timm's own, made for new weights, answers far worse
            for parameter in module.get_submodule(head).parameters():
                nn.init.zeros_(parameter)
    trained = checkpoint is not None or (plan.trained and not plan.foreign)
    noted = bool(saved.get("mean")) or (plan.trained and not plan.foreign)
    return Built(module, plan.name, found or num_classes, chans, normalisation, noted, trained, heads, notes)


def _text(
    name: str, folder: Path, checkpoint: str | Path | None, pretrained: bool, num_classes: int | None, new_head: bool
) -> Built:
    """Open a folder of transformers; the weights are its own."""
    from nas_kd.teacher.text import read_text_model  # late: it needs another package

    for setting, given in (("checkpoint", checkpoint), ("pretrained", pretrained or None)):
        if given is not None:
            expected = "null with a folder of transformers, whose weights are in it"
            raise SettingError(f"teacher.{setting}", given, expected, f"leave teacher.{setting} out")
    module, heads = read_text_model(folder, num_classes, new_head=new_head)
    if new_head:
        module.forget_names()
    for head in heads:  # it answers chance
        for parameter in module.get_submodule(head).parameters():
            nn.init.zeros_(parameter)
    return Built(
        module, str(Path(name).expanduser()), module.num_classes, 1, None, noted=True, trained=True, heads=heads
    )


def _normalisation(plan: Plan, saved: dict[str, Any], loaded: bool) -> tuple[Sequence[float], Sequence[float]] | None:
    if saved.get("mean"):
        return saved["mean"], saved["std"]
    return plan.normalisation if plan.trained or loaded else None


def pretrained_normalisation(
    model: str, checkpoint: str | Path | None, pretrained: bool
) -> tuple[Sequence[float], Sequence[float]] | None:
    """Return the mean and std that the weights to fine-tune were trained with; None if there are none that say so."""
    if transformers_about(at_home("teacher.model", model)) is not None:
        return None
    saved = read_nests(checkpoint)[1] if checkpoint is not None else {}
    return _normalisation(plan_of(model, pretrained, None), saved, checkpoint is not None)


def _refit(
    plan: Plan, module: nn.Module, nests: Sequence[Nest], classes: int | None, chans: int, asked: int | None
) -> tuple[nn.Module, int]:
    """Build the network again with the classes and channels of the checkpoint, where nobody asked for others."""
    fit = fit_of(module, nests)
    own = module.state_dict()
    theirs = first_channels(own, fit.weights) if asked is None and plan.in_chans is None else None
    heads = other_classes(own, fit.weights) if classes is None else []
    if theirs is None and not heads:
        return module, chans
    count = len(fit.weights[heads[0]]) if heads else classes
    return plan.build(count, theirs or chans), theirs or chans


def check_classes(nests: Sequence[Nest], classifier: str | None, num_classes: int | None) -> int | None:
    """Return the number of classes of a checkpoint (None if unknown), checked against the expected one.

    Raises:
        SettingError: the two differ.
    """
    ends = f"{classifier}.weight"
    found = {
        len(tensor)
        for nest in nests
        for name, tensor in nest.tensors.items()
        if (name == ends or name.endswith(f".{ends}")) and tensor.ndim > 1
    }
    if len(found) != 1:
        return num_classes
    (count,) = found
    if num_classes not in (None, count):
        expected = f"{count}, the number of classes of the checkpoint"
        hint = "use a teacher trained on these classes: `nas-kd teacher` fine-tunes one"
        raise SettingError("teacher.num_classes", num_classes, expected, hint)
    return count


def _new_heads(module: nn.Module, num_classes: int) -> tuple[str, ...]:
    """Return the classifiers that timm made anew, because its pretrained weights have other classes."""
    config = getattr(module, "pretrained_cfg", {})
    if config.get("num_classes") == num_classes or not config.get("classifier"):
        return ()
    names = config["classifier"]
    return (names,) if isinstance(names, str) else tuple(names)


def _channels_of(module: nn.Module) -> int | None:
    """Return the input channels of a user's network: those it names, else those of its first convolution."""
    named = getattr(module, "in_chans", None)
    first = next((part for part in module.modules() if isinstance(part, nn.Conv2d)), None)
    found = named if isinstance(named, int) else None if first is None else first.in_channels
    return found if found in (1, 3) else None


def build_model(
    model: str | Path | nn.Module,
    *,
    checkpoint: str | Path | None = None,
    num_classes: int | None = None,
    in_chans: int | None = None,
    pretrained: bool = False,
    resolution: int | None = None,
) -> nn.Module:
    """Build a network to train, such as a teacher to fine-tune.

    Args:
        model: see `load_teacher`; a network is returned without a copy.
        checkpoint: see `load_teacher`; with other classes the classifier is new.

    Raises:
        SettingError: see `load_teacher`.
    """
    return build(
        model,
        checkpoint=checkpoint,
        num_classes=num_classes,
        in_chans=in_chans,
        pretrained=pretrained,
        resolution=resolution,
        new_head=True,
    ).module


def _classes(module: nn.Module) -> int | None:
    if isinstance(module, StaticNet):
        return int(module.layers_spec[-1]["out"])
    found = getattr(module, "num_classes", None)
    return found if isinstance(found, int) and found > 0 else None
