"""Choice of the teacher layers that supervise the stages of a space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from nas_kd.errors import SettingError, nearest


@dataclass(frozen=True)
class Layer:
    """The end of one residual block of a teacher at one resolution.

    Args:
        path: name of the module, such as ``layer2.0``.
        channels: channels of its feature.
        size: height and width of its feature in pixels.
        pre: whether the feature before the block's last activation is available too.
    """

    path: str
    channels: int
    size: int
    pre: bool = False


@dataclass(frozen=True)
class Tap:
    """A teacher layer that a student stage must reproduce.

    Args:
        path: name of the teacher's module.
        channels: channels of the teacher's feature.
        size: its height and width in pixels.
        student_size: height and width of the student stage's output in pixels; at most `size`.
        pre: whether ``Output.pre`` holds the feature before the layer's last activation (else it repeats
            ``Output.stages``).
    """

    path: str
    channels: int
    size: int
    student_size: int
    pre: bool


def pool_to(x: Tensor, size: int) -> Tensor:
    """Average (B, C, H, W) down to ``size`` pixels; a feature that is not larger is returned unchanged."""
    height = min(x.shape[2], size)
    width = min(x.shape[3], size)
    return x if (height, width) == tuple(x.shape[2:]) else F.adaptive_avg_pool2d(x, (height, width))


def choose_taps(layers: Sequence[Layer], student_sizes: Sequence[int]) -> list[Tap]:
    """Assign a teacher layer to every student stage (output heights in pixels), both ordered from input to output.

    These are the last layers of the teacher's resolutions if there are as many as stages, else layers at equal shares
    of its depth. A layer whose map is smaller than the student's is replaced by the last one before it that is large
    enough; no layer is used twice if there are enough of them.

    Raises:
        SettingError: no layer is as large as a stage's output.
    """
    count = len(student_sizes)
    ends = [i for i, layer in enumerate(layers) if i + 1 == len(layers) or layers[i + 1].size != layer.size]
    if len(ends) == count:
        chosen = ends
    else:  # integers only: equal shares rounded half up
        chosen = [max((2 * (s + 1) * len(layers) + count) // (2 * count), 1) - 1 for s in range(count)]
    for stage, size in enumerate(student_sizes):
        large = [i for i in range(chosen[stage] + 1) if layers[i].size >= size]
        if not large:
            _refuse_size(stage, size, max(layer.size for layer in layers))
        chosen[stage] = large[-1]
    for stage in range(count - 2, -1, -1):  # earlier layers have larger maps, so moving earlier is always possible
        chosen[stage] = max(min(chosen[stage], chosen[stage + 1] - 1), 0)
    return [_tap(layers[i], size) for i, size in zip(chosen, student_sizes, strict=True)]


def named_taps(layers: Sequence[Layer], student_sizes: Sequence[int], paths: Sequence[str]) -> list[Tap]:
    """Assign the layers that the user named, one per student stage.

    Raises:
        SettingError: a name is unknown, its map is too small, or the number or order of names is wrong.
    """
    if len(paths) != len(student_sizes):
        expected = f"{len(student_sizes)} layers, one per stage of the space"
        raise SettingError("teacher.stages", list(paths), expected, "name one teacher layer per stage")
    order = {layer.path: i for i, layer in enumerate(layers)}
    for path in paths:
        if path not in order:
            expected = "a layer of the teacher with a feature map as output"
            raise SettingError("teacher.stages", path, expected, nearest(path, order))
    positions = [order[path] for path in paths]
    if positions != sorted(positions):
        raise SettingError("teacher.stages", list(paths), "layers from input to output", "reorder them")
    for stage, (position, size) in enumerate(zip(positions, student_sizes, strict=True)):
        if layers[position].size < size:
            _refuse_size(stage, size, layers[position].size, layers[position].path)
    return [_tap(layers[position], size) for position, size in zip(positions, student_sizes, strict=True)]


def describe_taps(taps: Sequence[Tap]) -> list[str]:
    """Describe the pairs of student stage and teacher layer, one line per stage, counted from 1."""
    lines = []
    for number, tap in enumerate(taps, 1):
        pooled = f", averaged to {tap.student_size} px" if tap.size > tap.student_size else ""
        lines.append(
            f"student stage {number} ({tap.student_size} px) learns from teacher {tap.path} "
            f"({tap.channels} channels, {tap.size} px{pooled})"
        )
    return lines


def _tap(layer: Layer, student_size: int) -> Tap:
    return Tap(layer.path, layer.channels, layer.size, student_size, layer.pre)


def _refuse_size(stage: int, size: int, largest: int, path: str | None = None) -> None:
    where = f"the map of {path}" if path else "the largest map of the teacher"
    hint = "choose a teacher or layers with larger maps, a larger resolution, or a space with earlier strides"
    raise SettingError(f"teacher.stages[{stage}]", f"{largest} px", f"at least {size} px ({where})", hint)
