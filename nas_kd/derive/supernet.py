"""The supernet of a derived space: the teacher's weights, shared by all its cuts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nas_kd.derive.network import CutNet
from nas_kd.derive.space import TeacherSpace
from nas_kd.nn.norm import NormValues
from nas_kd.space.arch import Arch


class TeacherSupernet(nn.Module):
    """All archs of a derived space in the teacher's weights; the arch is an argument, never a state.

    Args:
        space: the space.
    """

    def __init__(self, space: TeacherSpace) -> None:
        super().__init__()
        derived = space.derived
        self.space = space
        self.num_classes = derived.num_classes
        self.in_chans = derived.in_chans
        self.cuts = CutNet(derived.network, derived.units, derived.order)

    def forward(self, x: Tensor, arch: Arch, norm: NormValues | None = None) -> Tensor:
        """Run the subnet of an arch: images (B, C, H, W), normalised as the teacher's, to logits (B, classes)."""
        return self.cuts(x, self.space.choices(arch), norm)

    def statistics(self, batches: Iterable[Any], archs: Sequence[Arch]) -> list[NormValues]:
        """Measure the batch-norm statistics of archs; see `nas_kd.calibrate`."""
        images = [batch if isinstance(batch, Tensor) else batch[0] for batch in batches]
        return [self.cuts.statistics(images, self.space.choices(arch)) for arch in archs]

    @torch.no_grad()
    def extract(self, arch: Arch, norm: NormValues | None = None) -> nn.Module:
        """Copy one arch out: the teacher's own class, cut."""
        return self.cuts.extract(self.space.choices(arch), norm)
