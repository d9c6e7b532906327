"""Checkpoints: safe reading, strict loading with precise errors, and writing."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nas_kd.errors import SettingError
from nas_kd.runs.files import atomic_write

# keys under which training scripts store weights; averaged ones first, as in timm
KEYS = ("state_dict_ema", "model_ema", "state_dict", "model")
PREFIXES = ("module.", "_orig_mod.")  # DistributedDataParallel and torch.compile


def read_weights(path: str | Path, field: str = "teacher.checkpoint") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint without executing anything in it.

    Args:
        path: a .safetensors file, or one written by torch.save that holds tensors and plain values only.
        field: the setting that names it, for the error message.

    Returns:
        Name to tensor, and the notes of `save_weights` (empty for other files).

    Raises:
        SettingError: the file is missing, damaged, holds no weights, or holds objects that would be executed.
    """
    path = Path(path)
    if not path.is_file():
        raise SettingError(field, str(path), "an existing file", "check the path")
    if path.suffix == ".safetensors":
        return _read_safetensors(path, field)
    expected = "a .safetensors file or a torch.save of weights only"
    try:
        _check_stored(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file may raise anything
        hint = "if you trust the file, load it yourself and write torch.save(model.state_dict(), path)"
        raise SettingError(field, str(path), expected, hint) from error
    for key in KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not any(isinstance(v, Tensor) for v in content.values()):
        expected = f"a state dict, or a dictionary with one under {', '.join(KEYS)}"
        raise SettingError(field, str(path), expected, "save model.state_dict()")
    return {_without_prefix(str(name)): v for name, v in content.items() if isinstance(v, Tensor)}, {}


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
            weights = {_without_prefix(name): file.get_tensor(name) for name in file.keys()}
        noted = json.loads(notes.get("nas_kd", "{}"))
        mean = noted.get("mean") or []
        std = noted.get("std") or []
        if len(mean) != len(std) or not all(isinstance(value, int | float) for value in [*mean, *std]):
            raise ValueError(f"mean is {mean}, std {std}")
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        expected = "an undamaged .safetensors file"
        raise SettingError(field, str(path), expected, "write or copy it again") from error
    return weights, noted


def _without_prefix(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def check_classes(weights: Mapping[str, Tensor], classifier: str | None, num_classes: int | None) -> int | None:
    """Return the number of classes of a checkpoint (None if unknown), checked against the expected one.

    Raises:
        SettingError: the two differ.
    """
    weight = weights.get(f"{classifier}.weight")
    if weight is None or weight.ndim < 2:
        return num_classes
    found = weight.shape[0]
    if num_classes not in (None, found):
        expected = f"{found}, the number of classes of the checkpoint"
        hint = "use a teacher trained on these classes: `nas-kd teacher` fine-tunes one"
        raise SettingError("teacher.num_classes", num_classes, expected, hint)
    return found


def fresh_head(weights: dict[str, Tensor], module: nn.Module, classifier: str | None) -> dict[str, Tensor]:
    """Replace a checkpoint's classifier by the network's new one if the numbers of classes differ."""
    own = {name: tensor for name, tensor in module.state_dict().items() if name.rpartition(".")[0] == classifier}
    if all(name not in weights or weights[name].shape == tensor.shape for name, tensor in own.items()):
        return weights
    return {**weights, **own}


def fit_weights(module: nn.Module, weights: Mapping[str, Tensor], path: str | Path, name: str) -> None:
    """Load weights into a network, strictly.

    Raises:
        SettingError: with the first tensor of another shape, else the first missing, else the first unknown.
    """
    own = module.state_dict()
    hint = f"set teacher.model to the architecture of {path}"
    for key, tensor in own.items():
        if key in weights and weights[key].shape != tensor.shape:
            expected = f"weights of {name}: {key} has shape {_shape(weights[key])} instead of {_shape(tensor)}"
            raise SettingError("teacher.checkpoint", str(path), expected, hint)
    # counters are missing in old checkpoints and not used in evaluation
    missing = [key for key in own if key not in weights and not key.endswith("num_batches_tracked")]
    if missing:
        expected = f"weights of {name}: it lacks {missing[0]} {_shape(own[missing[0]])} and {len(missing) - 1} more"
        raise SettingError("teacher.checkpoint", str(path), expected, hint)
    unknown = [key for key in weights if key not in own]
    if unknown:
        expected = (
            f"weights of {name}: it has {unknown[0]} {_shape(weights[unknown[0]])} and "
            f"{len(unknown) - 1} more, which {name} lacks"
        )
        raise SettingError("teacher.checkpoint", str(path), expected, hint)
    module.load_state_dict(weights, strict=False)


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def save_weights(
    module: nn.Module,
    path: str | Path,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    **notes: Any,
) -> None:
    """Write a network's weights with their normalisation, for `load_teacher(checkpoint=path)`.

    Args:
        path: a .safetensors file.
        mean: mean of each input channel in 0..1 units.
        std: standard deviation of each input channel in 0..1 units.
        notes: further plain values, such as the model's name or its class names.

    Raises:
        SettingError: the disk is full or read-only.
    """
    from safetensors.torch import save

    weights = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in module.state_dict().items()}
    text = json.dumps({"mean": list(mean) if mean else None, "std": list(std) if std else None, **notes})
    atomic_write(path, save(weights, {"format": "pt", "nas_kd": text}))
