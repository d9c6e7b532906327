"""What teaches a student stage: a layer of the teacher, and the size at which the two are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor


class Staged(Protocol):
    """The part of a space that taps are chosen for."""

    def stage_sizes(self, resolution: int) -> list[int]:
        """Return the output height of each stage in pixels."""


@dataclass(frozen=True)
class Layer:
    """The end of one residual block, or of any other module, of a teacher at one resolution.

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
        student_size: height and width of the student stage's output in pixels.
        pre: whether ``Output.pre`` holds the feature before the layer's last activation (else it repeats
            ``Output.stages``).
    """

    path: str
    channels: int
    size: int
    student_size: int
    pre: bool

    @property
    def compared(self) -> int:
        """Height and width in pixels at which student and teacher are compared: the smaller of the two."""
        return min(self.size, self.student_size)


def pool_to(x: Tensor, size: int) -> Tensor:
    """Average (B, C, H, W) down to ``size`` pixels; a feature that is not larger is returned unchanged."""
    height = min(x.shape[2], size)
    width = min(x.shape[3], size)
    return x if (height, width) == tuple(x.shape[2:]) else F.adaptive_avg_pool2d(x, (height, width))


def grow_to(x: Tensor, size: int) -> Tensor:
    """Resize (B, C, H, W) up to ``size`` pixels, bilinear; a feature that is not smaller is returned unchanged."""
    if x.shape[2] >= size and x.shape[3] >= size:
        return x
    return F.interpolate(x, (size, size), mode="bilinear", align_corners=False)


def describe_taps(taps: Sequence[Tap]) -> list[str]:
    """Describe the pairs of student stage and teacher layer, one line per stage, counted from 1."""
    lines = []
    before: Tap | None = None
    for number, tap in enumerate(taps, 1):
        more = f", averaged to {tap.student_size} px" if tap.size > tap.student_size else ""
        if tap.size < tap.student_size:
            more = ", to which the student's output is averaged"
        line = (
            f"student stage {number} ({tap.student_size} px) learns from teacher {tap.path} "
            f"({tap.channels} channels, {tap.size} px{more})"
        )
        if before is not None and before.size < before.student_size:
            line += f"; its input, {before.path}, is resized from {before.size} to {before.student_size} px"
        lines.append(line)
        before = tap
    return lines
