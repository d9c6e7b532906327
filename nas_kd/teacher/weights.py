"""Weights of a checkpoint put into a network, with precise errors, and writing."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nas_kd.errors import SettingError
from nas_kd.runs.files import atomic_write
from nas_kd.teacher.checkpoint import SAVE, Nest, averaged, read_nests, unwrapped
from nas_kd.teacher.fitting import Fit, best_fit, larger, nearest_names, shape_of

SHOWN = 5  # names in a message


def read_weights(path: str | Path, field: str = "teacher.checkpoint") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the weights of a checkpoint without executing anything in it, where no network says which they are.

    Args:
        path: a .safetensors file, or one written by torch.save that holds tensors and plain values only.
        field: the setting that names it, for the error message.

    Returns:
        Name to tensor of the mapping with the most tensors (of equal ones the averaged), and the notes of
        `save_weights` (empty for other files).

    Raises:
        SettingError: the file is missing, damaged, holds no weights, or holds objects that would be executed.
    """
    nests, notes = read_nests(path, field)
    own = [{name: t for name, t in nest.tensors.items() if name not in nest.deeper} for nest in nests]
    count = max(len(tensors) for tensors in own)
    fullest = [at for at, tensors in enumerate(own) if len(tensors) == count]
    best = next((at for at in fullest if averaged(".".join(nests[at].path))), fullest[0])
    return {unwrapped(name).removeprefix("module."): tensor for name, tensor in own[best].items()}, notes


@dataclass(frozen=True)
class Loaded:
    """What was done to put a checkpoint into a network.

    Args:
        heads: modules of the network that keep new weights, because the checkpoint has other classes.
        notes: what a user may want to know, a line each.
    """

    heads: tuple[str, ...]
    notes: tuple[str, ...]


def fit_of(module: nn.Module, nests: Sequence[Nest]) -> Fit:
    """Return the tensors of a checkpoint that fit a network, converted as timm does for its own models.

    That resamples position embeddings to another input size, and renames the tensors of other repositories.
    """
    own = module.state_dict()
    fit = best_fit(own, nests)
    home = type(module).__module__
    convert = getattr(sys.modules[home], "checkpoint_filter_fn", None) if home.startswith("timm.") else None
    if convert is None or fit.fitting == len(own):
        return fit
    try:
        tensors = convert({**fit.others, **fit.weights}, module)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return fit  # not a checkpoint that timm knows
    found = best_fit(own, [Nest((), tensors)])
    if found.fitting <= fit.fitting:
        return fit
    return Fit(found.weights, found.fitting, fit.place, found.others, fit.depth)


def load_fit(module: nn.Module, fit: Fit, path: str | Path, name: str, *, new_head: bool = False) -> Loaded:
    """Load the tensors of a checkpoint that fit a network; every tensor of it must be there.

    Args:
        name: of the network, for messages.
        new_head: a checkpoint with other classes leaves the classifier as it is; else that is an error.

    Raises:
        SettingError: with the first tensor of another shape, else the first missing, else of a deeper network.
    """
    own = module.state_dict()
    weights = {key: _sound(key, tensor, own[key], path) for key, tensor in fit.weights.items()}
    notes = [f"the weights are those under {fit.place}"] if fit.place else []
    weights, summed = _one_channel(own, weights)
    notes += summed
    heads = other_classes(own, weights) if new_head else []
    if heads:
        notes.append(
            f"the checkpoint has {len(weights[heads[0]])} classes, the data {len(own[heads[0]])}: new classifier"
        )
    _check_shapes(own, {key: tensor for key, tensor in weights.items() if key not in heads}, path, name)
    _check_names(own, fit, path, name)
    if fit.others:
        notes.append(f"{len(fit.others)} entries are not of {name} and left out: {_few(list(fit.others))}")
    module.load_state_dict({key: tensor for key, tensor in weights.items() if key not in heads}, strict=False)
    modules = dict.fromkeys(key.rpartition(".")[0] for key in heads)
    return Loaded(tuple(modules), tuple(f"{path}: {note}" for note in notes))


def other_classes(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[str]:
    """Return the tensors that differ in their first axis alone, all alike: those of a classifier of other classes."""
    first = _first_convolution(own, weights)
    differ = [key for key, tensor in weights.items() if key != first and shape_of(tensor) != shape_of(own[key])]
    if any((shape_of(weights[key]) or ())[1:] != own[key].shape[1:] or not own[key].ndim for key in differ):
        return []
    counts = {(len(weights[key]), len(own[key])) for key in differ}
    return differ if len(counts) == 1 else []


def first_channels(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> int | None:
    """Return the input channels of a checkpoint where they differ from a network's, else None."""
    key = _first_convolution(own, weights)
    return None if key is None else weights[key].shape[1]


def _first_convolution(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str | None:
    """Return the one convolution that differs in nothing but its input channels."""
    found = []
    for key, tensor in weights.items():
        mine = shape_of(own[key]) or ()
        theirs = shape_of(tensor) or ()
        if len(mine) == len(theirs) == 4 and mine[1] != theirs[1] and (mine[0], mine[2:]) == (theirs[0], theirs[2:]):
            found.append(key)
    return found[0] if len(found) == 1 else None


def _one_channel(own: Mapping[str, Tensor], weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Sum the first convolution over three colours where the network takes grey images, as timm does.

    Its answer is that of the network of three channels to the same image in each of them.
    """
    key = _first_convolution(own, weights)
    if key is None or (own[key].shape[1], weights[key].shape[1]) != (1, 3):
        return weights, []
    note = f"the images are grey: {key} is summed over its three channels"
    return {**weights, key: weights[key].float().sum(1, keepdim=True)}, [note]


def _sound(key: str, tensor: Tensor, own: Tensor, path: str | Path) -> Tensor:
    """Return a tensor whose values can be used.

    Raises:
        SettingError: it has no values, is not dense, of another kind of numbers, or not finite.
    """
    wrong = ""
    if tensor.is_meta:
        wrong = "it is on the meta device, which holds no values"
    elif tensor.is_nested or tensor.layout != torch.strided:
        wrong = "it is " + ("nested" if tensor.is_nested else "sparse")
    elif tensor.is_quantized or (own.is_floating_point() and not tensor.is_floating_point()):
        wrong = f"it is {str(tensor.dtype).removeprefix('torch.')}"
    elif tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
        wrong = "it holds NaN or infinity"
    if wrong:
        hint = f"write the weights of a sound network, dense and as floating-point numbers, by {SAVE}"
        raise SettingError("teacher.checkpoint", str(path), f"usable weights of {key} ({wrong})", hint)
    return tensor


def _check_shapes(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], path: str | Path, name: str) -> None:
    for key, tensor in weights.items():
        if tensor.shape != own[key].shape:
            expected = f"weights of {name}: {key} has shape {_shape(tensor)} instead of {_shape(own[key])}"
            raise SettingError("teacher.checkpoint", str(path), expected, _hint(name))


def _check_names(own: Mapping[str, Tensor], fit: Fit, path: str | Path, name: str) -> None:
    """Check that every tensor of a network is there, and that none is of a deeper one."""
    # counters are missing in old checkpoints and not used in evaluation
    missing = [key for key in own if key not in fit.weights and not key.endswith("num_batches_tracked")]
    if missing:
        first = missing[0]
        near = nearest_names(first, list(fit.others))
        theirs = f"the file's nearest are {', '.join(near)}" if near else "the file has no others"
        mine = ", ".join(nearest_names(near[0] if near else first, missing))
        expected = (
            f"weights of {name}: it lacks {first} {_shape(own[first])} and {len(missing) - 1} more of {len(own)}; "
            f"{theirs}; it lacks {mine}"
        )
        raise SettingError("teacher.checkpoint", str(path), expected, _hint(name))
    unknown = larger(own, fit.others)
    if unknown:
        expected = (
            f"weights of {name}: it has {unknown[0]} {_shape(fit.others[unknown[0]])} and "
            f"{len(unknown) - 1} more, which {name} lacks"
        )
        raise SettingError("teacher.checkpoint", str(path), expected, _hint(name))


def _hint(name: str) -> str:
    return (
        f"the names must be those of {name}.state_dict(): give the teacher.model that was saved, or your own network "
        "as teacher.model=package.module:function"
    )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (" ..." if len(names) > SHOWN else "")


def _shape(tensor: Tensor) -> str:
    return str(shape_of(tensor))


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
