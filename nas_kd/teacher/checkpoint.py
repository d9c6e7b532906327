"""Safe reading of checkpoints: the tensors of a file by their dotted names, without executing anything in it."""

from __future__ import annotations

import argparse
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nas_kd.config.reading import check_file, memory, parsed
from nas_kd.errors import SettingError

DEEPEST = 16  # mappings inside each other
SAVE = "torch.save(model.state_dict(), path)"
# parts of names that wrappers put anywhere into a network, and no network has itself
WRAPPERS = re.compile(r"(^|\.)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?=\.)")
AVERAGED = re.compile("ema|swa|averag", re.IGNORECASE)


@dataclass(frozen=True)
class Nest:
    """The tensors of one mapping in a checkpoint, and of those inside it.

    Args:
        path: the keys that lead to it, such as ``("state_dict",)``; empty for the whole file.
        tensors: dotted name inside it to tensor.
        deeper: the names of those that a mapping inside it holds.
    """

    path: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    deeper: frozenset[str] = frozenset()


def _plain() -> list[Any]:
    """Return what training scripts save beside weights and runs no code: arguments (timm's script), NumPy's numbers."""
    number: Any = np.float64(0).__reduce__()[0]
    array: Any = np.zeros(1).__reduce__()[0]
    homes = ("numpy.core.multiarray", "numpy._core.multiarray")  # NumPy 1 and 2
    named = [(made, f"{home}.{made.__name__}") for home in homes for made in (number, array)]
    kinds = [type(np.dtype(code)) for code in "?bBhHiIlLqQefd"]
    return [argparse.Namespace, np.dtype, np.ndarray, *kinds, *named]


def averaged(place: str) -> bool:
    """Return whether a name in a checkpoint speaks of averaged weights, which are preferred, as timm does."""
    return AVERAGED.search(place) is not None


def read_nests(path: str | Path, field: str = "teacher.checkpoint") -> tuple[list[Nest], dict[str, Any]]:
    """Read a checkpoint without executing anything in it.

    Args:
        path: a .safetensors file, or one written by torch.save that holds tensors and plain values only.
        field: the setting that names it, for the error message.

    Returns:
        Every mapping in the file that holds tensors, the outer before the inner, and the notes of `save_weights` (empty
        for other files).

    Raises:
        SettingError: the file is missing, damaged, holds no weights, or holds objects that would be executed.
    """
    path = Path(path)
    if not path.is_file():
        raise SettingError(field, str(path), "an existing file", "check the path")
    check_file(path, memory(), field=field)
    if path.suffix == ".safetensors":
        weights, notes = _read_safetensors(path, field)
        return [Nest((), weights)], notes
    try:
        _check_stored(path)
        with torch.serialization.safe_globals(_plain()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file may raise anything
        raise _refused(path, error, field) from error
    nests: list[Nest] = []
    _collect(content, (), nests, set())
    if not nests:
        expected = "a state dict, or a dictionary that holds one under any name"
        raise SettingError(field, str(path), expected, f"save it by {SAVE}")
    return nests, {}


def _refused(path: Path, error: Exception, field: str) -> SettingError:
    """Return the error of a file that torch does not read safely; it names the object where torch does."""
    expected = "a .safetensors file or a torch.save of weights only"
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    if found is not None:
        expected += f"; it holds an object of {found[1]}, which runs code when it is read"
    hint = f"if you trust the file, load it yourself and write {SAVE}"
    return SettingError(field, str(path), expected, hint)


def _collect(content: Any, path: tuple[str, ...], nests: list[Nest], seen: set[int]) -> dict[str, Tensor]:
    """Append the mappings in a file that hold tensors, each once, and return the tensors of this one by name."""
    if not isinstance(content, Mapping) or id(content) in seen or len(path) > DEEPEST:
        return {}
    seen.add(id(content))
    place = len(nests)
    tensors: dict[str, Tensor] = {}
    deeper: list[str] = []
    for key, value in content.items():
        if isinstance(value, Tensor):
            tensors[str(key)] = value
        else:
            inner = _collect(value, (*path, str(key)), nests, seen)
            below = {f"{key}.{name}": tensor for name, tensor in inner.items()}
            tensors |= below
            deeper += below
    if tensors:
        nests.insert(place, Nest(path, tensors, frozenset(deeper)))
    return tensors


def _check_stored(path: Path) -> None:
    """Raise for a compressed archive: torch.save never writes one, and it may expand to a thousand times its size."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
                raise ValueError("a compressed archive")


def _read_safetensors(path: Path, field: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            notes = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}
        noted = parsed(notes.get("nas_kd", "{}"))
        mean = noted.get("mean") or []
        std = noted.get("std") or []
        if len(mean) != len(std) or not all(isinstance(value, int | float) for value in [*mean, *std]):
            raise ValueError(f"mean is {mean}, std {std}")
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        expected = "an undamaged .safetensors file"
        raise SettingError(field, str(path), expected, "write or copy it again") from error
    return weights, noted


def unwrapped(name: str) -> str:
    """Return a tensor's name without what torch.compile, FSDP and checkpointing put between its parts."""
    return WRAPPERS.sub("", name).removeprefix(".")
