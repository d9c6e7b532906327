"""Building of the network that a user names, with its weights."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from nas_kd.errors import SettingError, nearest
from nas_kd.nn.static import StaticNet
from nas_kd.teacher.cifar_resnet import DEPTHS, CifarResNet
from nas_kd.teacher.weights import check_classes, fit_weights, fresh_head, read_weights

OWN = {f"cifar_resnet{depth}": depth for depth in DEPTHS}
# the published weights of the CIFAR ResNets were trained with ImageNet's mean and std
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HUBS = ("hf-hub:", "hf_hub:", "local-dir:")  # timm's own prefixes, not package:factory


@dataclass(frozen=True)
class _Plan:
    """How to build a network once its class count is known, and what is known before."""

    name: str
    build: Callable[[int | None], nn.Module]
    classifier: str | None = None
    normalisation: tuple[Sequence[float], Sequence[float]] | None = None
    trained: bool = False  # the built network already has trained weights
    in_chans: int | None = None  # if the user cannot choose it


@dataclass(frozen=True)
class Built:
    """A network and its properties.

    Args:
        num_classes: number of logits; None if only a forward pass can tell.
        normalisation: mean and std that it was trained with; None if unknown.
    """

    module: nn.Module
    name: str
    num_classes: int | None
    in_chans: int
    normalisation: tuple[Sequence[float], Sequence[float]] | None


def build(
    model: str | Path | nn.Module,
    *,
    checkpoint: str | Path | None = None,
    num_classes: int | None = None,
    in_chans: int = 3,
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
    plan = _plan(model, in_chans, pretrained, resolution)
    weights, notes = read_weights(checkpoint) if checkpoint is not None else ({}, {})
    if weights and not new_head:
        num_classes = check_classes(weights, plan.classifier, num_classes)
    module = plan.build(num_classes)
    if new_head:
        weights = fresh_head(weights, module, plan.classifier)
    if checkpoint is not None:
        fit_weights(module, weights, checkpoint, plan.name)
    classes = _classes(module)
    if num_classes is not None and classes not in (None, num_classes):
        expected = f"{classes}, the number of classes of {plan.name}"
        hint = "use a teacher trained on these classes: `nas-kd teacher` fine-tunes one"
        raise SettingError("teacher.num_classes", num_classes, expected, hint)
    in_chans = module.layers_spec[0]["in"] if isinstance(module, StaticNet) else plan.in_chans or in_chans
    normalisation = plan.normalisation if plan.trained or checkpoint is not None else None
    if notes.get("mean"):
        normalisation = notes["mean"], notes["std"]
    return Built(module, plan.name, classes or num_classes, in_chans, normalisation)


def build_model(
    model: str | Path | nn.Module,
    *,
    checkpoint: str | Path | None = None,
    num_classes: int | None = None,
    in_chans: int = 3,
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


def _plan(model: str | Path | nn.Module, in_chans: int, pretrained: bool, resolution: int | None) -> _Plan:
    if isinstance(model, nn.Module):
        return _Plan(type(model).__name__, lambda classes: model, trained=True)
    name = str(model)
    path = Path(name)
    if path.is_dir():
        return _student(path)
    hub = name.startswith(HUBS)
    if isinstance(model, Path) or (not hub and ("/" in name or name.startswith("."))):
        expected = "a student folder (with arch.json), a timm name or package.module:factory"
        raise SettingError("teacher.model", name, expected, "check the path")
    if pretrained and (name in OWN or (":" in name and not hub)):
        hint = "use teacher.checkpoint"
        raise SettingError("teacher.pretrained", True, "true for timm models only", hint)
    if name in OWN:
        return _Plan(name, lambda c: CifarResNet(OWN[name], c or 10, in_chans), "linear", IMAGENET)
    if ":" in name and not hub:
        return _Plan(name, lambda classes: _call_factory(name, classes, in_chans))
    return _timm(name, in_chans, pretrained, resolution, hub)


def _timm(name: str, in_chans: int, pretrained: bool, resolution: int | None, hub: bool) -> _Plan:
    import timm

    if not hub and not timm.is_model(name):
        expected = "a timm model, cifar_resnet8 to cifar_resnet110, package.module:factory, or a student folder"
        raise SettingError("teacher.model", name, expected, nearest(name, [*OWN, *timm.list_models()]))
    config = None if hub else timm.get_pretrained_cfg(name)
    options: dict[str, Any] = {"in_chans": in_chans}
    if resolution is not None and config is not None and config.fixed_input_size:
        options["img_size"] = resolution

    def build(num_classes: int | None) -> nn.Module:
        classes: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
        if not (pretrained or hub):
            return timm.create_model(name, pretrained=False, **classes, **options)
        try:  # hub and network errors are OSErrors, ValueErrors or, from timm, RuntimeErrors
            return timm.create_model(name, pretrained=pretrained, **classes, **options)
        except (OSError, ValueError, RuntimeError) as error:
            hint = "download the weights elsewhere and set teacher.checkpoint"
            expected = f"true only if the weights of {name} can be downloaded ({str(error).splitlines()[0]})"
            raise SettingError("teacher.pretrained", pretrained, expected, hint) from error

    normalisation = None if config is None else (config.mean, config.std)
    classifier = config.classifier if config is not None and isinstance(config.classifier, str) else None
    return _Plan(name, build, classifier, normalisation, trained=pretrained)


def _call_factory(name: str, num_classes: int | None, in_chans: int) -> nn.Module:
    package, _, attribute = name.partition(":")
    here = str(Path.cwd())
    sys.path.append(here)  # last, so that a user's file does not shadow an installed package
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        hint = "install it, or run nas-kd in the folder that contains it"
        raise SettingError("teacher.model", name, f"a package that can be imported ({error})", hint) from error
    finally:
        sys.path.remove(here)
    factory = getattr(module, attribute, None)
    if not callable(factory):
        names = [key for key, value in vars(module).items() if callable(value)]
        raise SettingError("teacher.model", name, f"a function of {package}", nearest(attribute, names))
    accepts = inspect.signature(factory).parameters
    any_keyword = any(p.kind is p.VAR_KEYWORD for p in accepts.values())
    settings = {"num_classes": num_classes, "in_chans": in_chans}
    given = {k: v for k, v in settings.items() if v is not None and (k in accepts or any_keyword)}
    built = factory(**given)
    if not isinstance(built, nn.Module):
        raise SettingError("teacher.model", name, "a function that returns an nn.Module", "check the function")
    return built


def _student(folder: Path) -> _Plan:
    if not (folder / "arch.json").is_file() and not (folder / "student.json").is_file():
        expected = "a student folder, which holds arch.json"
        raise SettingError("teacher.model", str(folder), expected, "pass the folder that `nas-kd retrain` wrote")
    from nas_kd.export import load_student  # late: export comes after teacher in the order of imports

    student = load_student(folder)
    info: Any = student.info
    normalisation = (info["mean"], info["std"]) if info.get("mean") else None
    return _Plan(str(folder), lambda classes: student, None, normalisation, trained=True, in_chans=info.get("in_chans"))
