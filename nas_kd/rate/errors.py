"""Errors of a stage's output against the teacher's feature: sums over images, weighted by channel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

DEAD = 1e-12  # a channel whose variance is a smaller share of the largest one's never changes


class StageError(NamedTuple):
    """A weighted sum of the errors of all values of a feature, so that images can come in batches of any size.

    Args:
        size: from outputs and targets (N, C, H, W) to the size of each difference, of the same shape.
        weights: from the mean of each channel of the teacher's feature (C,), its summed squared deviations from it (C,)
            and the number of values a channel to what its errors count (C,).
    """

    size: Callable[[Tensor, Tensor], Tensor]
    weights: Callable[[Tensor, Tensor, int], Tensor]

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the error of a stage's output.

        Args:
            student: (N, C, H, W).
            teacher: same shape.

        Returns:
            A scalar without units, float64; 0 for a perfect stage.
        """
        return (channel_sums([self.size(student, teacher)]) * self.of([teacher])).sum()

    def of(self, targets: Sequence[Tensor]) -> Tensor:
        """Return the weight of each channel's errors.

        Args:
            targets: the teacher's feature in batches, (N_i, C, H, W) each.

        Returns:
            (C,) weights.
        """
        count = sum(target.numel() for target in targets) // targets[0].shape[1]
        centre = channel_sums(targets) / count  # first, for squares of large values lose the small variances
        shape = (1, -1, 1, 1)
        spread = channel_sums([(target - centre.view(shape).to(target.dtype)).square() for target in targets])
        return self.weights(centre, spread, count)


def channel_sums(parts: Sequence[Tensor]) -> Tensor:
    """Add up the values of each channel over portions of images: (N_i, C, H, W) to (C,), in float64 where there is."""
    wide = torch.float32 if parts[0].device.type == "mps" else torch.float64
    return torch.stack([part.sum((0, 2, 3), dtype=wide) for part in parts]).sum(0)


def _square(student: Tensor, teacher: Tensor) -> Tensor:
    return (student - teacher).square()


def _absolute(student: Tensor, teacher: Tensor) -> Tensor:
    return (student - teacher).abs()


def _turned(student: Tensor, teacher: Tensor) -> Tensor:
    directions = (F.normalize(x.mean((2, 3), keepdim=True), dim=1) for x in (student, teacher))
    own, other = directions
    return (own - other).square().expand_as(teacher)  # each counts once for every position, as the weights expect


def _each(centre: Tensor, spread: Tensor, count: int) -> Tensor:
    return torch.full_like(centre, 1 / (2 * count))


def _energy(centre: Tensor, spread: Tensor, count: int) -> Tensor:
    return (1 / (spread + count * centre.square()).sum()).expand_as(centre)


def _signal(centre: Tensor, spread: Tensor, count: int) -> Tensor:
    alive = spread > DEAD * spread.max()
    return torch.where(alive, 1 / spread, 0.0) / alive.sum()


def _deviation(centre: Tensor, spread: Tensor, count: int) -> Tensor:
    total = count * len(centre)
    variance = (spread.sum() + count * (centre - centre.mean()).square().sum()) / (total - 1)
    return (1 / (total * variance.sqrt())).expand_as(centre)


NMSE = StageError(_square, _energy)
"""Squared error over squared target: 1 for an output of zeros. Puzzle (Bercovich et al. 2024)."""
NSR = StageError(_square, _signal)
"""Mean over channels of squared error over the variance of the teacher's channel. DONNA (Moons et al. 2021), eq. 1."""
RELATIVE_L1 = StageError(_absolute, _deviation)
"""Mean absolute error over the standard deviation of the teacher's feature. DNA (Li et al. 2020), equation 6."""

COSINE = StageError(_turned, _each)
"""1 - cosine of the means over positions. BossNAS (Li et al. 2021), DNA++ (Wang et al. 2024)."""

ERRORS = {"nsr": NSR, "nmse": NMSE, "relative_l1": RELATIVE_L1, "cosine": COSINE}
