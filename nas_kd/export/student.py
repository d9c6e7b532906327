"""The student folder: a network that loads anywhere, without its config, space, supernet or teacher."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as safetensors_load
from safetensors.torch import save as safetensors_save
from torch import Tensor, nn

from nas_kd.blocks import kinds
from nas_kd.config.kinds import checked
from nas_kd.config.paths import TOKENIZER
from nas_kd.errors import SettingError
from nas_kd.export.about import Student, as_student
from nas_kd.export.card import card
from nas_kd.export.factory import build_by, check_untrusted
from nas_kd.export.student_folder import (
    ABOUT,
    ARCH,
    CARD,
    ENV,
    EXPORTS,
    FORMAT,
    WEIGHTS,
    as_text,
    read_part,
    student_about,
    write_folder,
)
from nas_kd.export.versions import versions
from nas_kd.nn.cutting import CutPlan, cut_to
from nas_kd.nn.static import Kind, StaticNet
from nas_kd.nn.unmeasured import refuse_unmeasured, unmeasured
from nas_kd.runs.files import atomic_write, read_frame
from nas_kd.runs.tensors import ShapesOf, shapes_in


@checked
def save_student(student: nn.Module, folder: str | Path, *, info: Mapping[str, Any] | None = None) -> Path:
    """Save a network as a folder that `load_student` can load anywhere.

    The folder holds arch.json (the resolved list of layers; null for a network of a factory), student.json
    (everything in ``info``) and weights.safetensors; for people a card, README.md, and the versions, env.json. It is
    written atomically, even over an older one.

    Args:
        student: a `StaticNet` (what ``space.build`` and ``Supernet.extract`` return), or any other module together with
            ``info["factory"]``.
        folder: is created with its parents.
        info: plain values to store: mean and std (one float per channel, images in 0..1), classes (names), resolution
            (pixels), in_chans, num_classes, metrics (name to value), arch (``Arch.to_dict``), macs, params. For a
            module that is not a StaticNet also factory (``"package.module:callable"``, or ``"timm:MODEL"``) and
            factory_kwargs (keyword arguments, plain values), which together rebuild it. None takes ``student.info``.

    Raises:
        SettingError: the module cannot be rebuilt, the folder holds something else, or the disk is full or
            read-only.
    """
    folder = Path(folder)
    given = getattr(student, "info", {}) if info is None else info
    # cloned: safetensors rejects tied weights, which share memory
    state = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in student.state_dict().items()
    }
    about: dict[str, Any] = {"format_version": FORMAT} | {
        key: value for key, value in given.items() if key != "format_version"
    }
    layers = None
    if isinstance(student, StaticNet):
        kinds(student.kinds.values())  # raises if two classes of blocks have the same op
        layers = [dict(layer) for layer in student.layers_spec]
        about = {"in_chans": layers[0]["in"], "num_classes": layers[-1]["out"]} | about
        about |= {"factory": None, "factory_kwargs": {}}
    else:
        if not about.get("factory"):
            raise SettingError(
                "factory",
                None,
                f"a callable that builds this {type(student).__name__}",
                "pass factory='package.module:callable' (or 'timm:MODEL') and factory_kwargs={...}",
            )
        about["factory_kwargs"] = dict(about.get("factory_kwargs") or {})
        rebuilt = _cut(build_by(about["factory"], about["factory_kwargs"]), about.get("cut"), str(folder))
        _check_fit(rebuilt.state_dict(), _shapes(state), f"what {about['factory']} builds")
    about.setdefault("params", sum(p.numel() for p in student.parameters()))
    about.pop("unmeasured", None)
    if unmeasured(student):  # what refuses evaluation here does so where it is loaded
        about["unmeasured"] = True
    found = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    # they would be lost with the student that is replaced
    others = sorted({*found} - {ARCH, ABOUT, WEIGHTS, EXPORTS, CARD, ENV, TOKENIZER})
    if others or (folder.exists() and not folder.is_dir()):
        what = f"holds {', '.join(others[:3])}" if others else "is a file"
        expected = f"a new, empty or student folder; this {what}"
        raise SettingError("folder", str(folder), expected, "choose another one")
    write_folder(
        folder.resolve() if folder.is_symlink() else folder,
        {
            ARCH: as_text(layers),
            ABOUT: as_text(about),
            WEIGHTS: safetensors_save(state, {"format": "pt"}),
            CARD: card(about | {"layers": layers is not None}).encode(),
            ENV: as_text(versions()),
        },
    )
    return folder


@checked
def load_student(folder: str | Path, *, factory: str | None = None, blocks: Iterable[Kind] = ()) -> Student:
    """Load a student folder; nothing in it is executed.

    A student of a search space is built from its list of layers, with the blocks of nas_kd and ``blocks``; a timm model
    by timm. Any other factory needs its code: a network class of an installed package is used as the folder says, a
    function is called only if ``factory`` names it too.

    Args:
        folder: what `save_student` wrote.
        factory: the folder's own factory, ``"package.module:callable"``, if you trust that code.
        blocks: classes of your own stems, blocks and heads in its space.

    Returns:
        The network on the CPU in evaluation mode, with the dictionary ``.info`` of `save_student`. Its input is
        images (B, in_chans, H, W) in 0..1, minus ``info["mean"]``, divided by ``info["std"]``.

    Raises:
        SettingError: a file is missing, damaged or written by a newer version, a tensor does not fit the network, or
            the factory must be named.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SettingError("student", str(folder), "an existing student folder", "check the path")
    for name in (ABOUT, ARCH, WEIGHTS):
        if not (folder / name).is_file():
            expected = f"a folder with {ARCH}, {ABOUT} and {WEIGHTS}; {name} is missing"
            raise SettingError("student", str(folder), expected, "save the student again")
    about = student_about(folder)
    shapes = shapes_in(folder / WEIGHTS, "student", "save the student again")
    layers = read_part(folder / ARCH)
    named: Any = about.get("factory")
    if factory is not None and factory != named:
        raise SettingError("factory", factory, f"{named!r}, which {folder} was saved with", "omit it")
    if layers is not None:
        network = _from_layers(layers, kinds(blocks), shapes, folder / ARCH)
    else:
        if factory is None:
            check_untrusted(named, folder)
        plan = about.get("cut")
        most = None if plan is not None else sum(map(math.prod, shapes.values()))  # what is cut was larger
        network = _cut(build_by(named, about.get("factory_kwargs") or {}, most), plan, str(folder / ABOUT))
    _check_fit(network.state_dict(), shapes, str(folder / WEIGHTS))
    try:
        network.load_state_dict(safetensors_load((folder / WEIGHTS).read_bytes()))
    except (SafetensorError, ValueError, RuntimeError) as error:
        expected = "an undamaged .safetensors file"
        raise SettingError("student", str(folder / WEIGHTS), expected, "save the student again") from error
    if about.get("unmeasured"):
        refuse_unmeasured(network)
    return as_student(network.eval(), about)


def note_budget(folder: Path, words: str) -> None:
    """Say in a student folder what the network was bound to; what was said first stays."""
    about = student_about(folder)
    made = about.get("made") or {}
    if "budget" not in made:
        noted = {"format_version": FORMAT} | about | {"made": made | {"budget": words}}
        atomic_write(folder / ABOUT, as_text(noted))
        update_card(folder)


def update_card(folder: Path) -> None:
    """Write the card of a student folder again, with the latencies of its exports."""
    about = student_about(folder) | {"layers": read_part(folder / ARCH) is not None}
    tables = sorted((folder / EXPORTS).glob("*.latency.csv"))
    rows = [row for table in tables for row in read_frame(table).to_dict("records")]
    atomic_write(folder / CARD, card(about | {"latency": rows}))


def rebuilt(about: Mapping[str, Any], layers: Any, folder: Path) -> nn.Module:
    """Build the network that a description names, with new weights.

    Args:
        about: what student.json holds.
        layers: what arch.json holds.
        folder: where they come from: no class of a file in it is used, and no function at all.

    Raises:
        SettingError: no installed class builds it.
    """
    with torch.random.fork_rng(devices=[]):
        if layers is not None:
            return StaticNet(layers, kinds())
        check_untrusted(about.get("factory"), folder)
        network = build_by(str(about.get("factory")), about.get("factory_kwargs") or {})
        return _cut(network, about.get("cut"), str(folder))


def _cut(network: nn.Module, plan: Any, where: str) -> nn.Module:
    """Cut the network of a factory to the sizes in a folder, if there are any."""
    if plan is None:
        return network
    try:
        return cut_to(network, CutPlan.from_dict(plan))
    except (KeyError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        expected = f"a cut of the network that its factory builds ({type(error).__name__}: {error})"
        raise SettingError("student", where, expected, "save the student again") from error


def _from_layers(layers: Any, known: Mapping[str, Kind], have: ShapesOf, path: Path) -> nn.Module:
    """Build a StaticNet, after checking its layers against the weights."""
    hint = "save the student again"
    try:
        with torch.device("meta"):  # no memory is allocated: the sizes in the file may be huge
            needed = StaticNet(layers, known).state_dict()
    except Exception as error:  # any error of a damaged description
        expected = "a list of layers written by save_student"
        if isinstance(error, SettingError):  # an op that no class builds
            expected = f"{expected}, with known blocks ({error})"
            hint = "pass the classes of your own blocks: load_student(folder, blocks=[...])"
        raise SettingError("student", str(path), expected, hint) from error
    _check_fit(needed, have, str(path.with_name(WEIGHTS)))
    with torch.random.fork_rng(devices=[]):  # initial weights are replaced: they must not advance the generator
        return StaticNet(layers, known)


def _shapes(tensors: Mapping[str, Tensor]) -> ShapesOf:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _check_fit(needed: Mapping[str, Tensor], have: ShapesOf, where: str) -> None:
    """Raise SettingError with the first tensor that is missing, unknown, or of another shape."""
    asked = _shapes(needed)
    for name in [*asked, *(name for name in have if name not in asked)]:
        shapes = [known.get(name, "none") for known in (asked, have)]
        if shapes[0] != shapes[1]:
            expected = f"weights of the same network; tensor {name}: {shapes[0]} expected, {shapes[1]} found"
            raise SettingError("student", where, expected, "architecture and weights must belong to the same student")
