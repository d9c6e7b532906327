"""A weighted sampler: every class is drawn equally often."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from nas_kd.data import Batch, Split
from nas_kd.distill.sampling import Resampled
from nas_kd.runtime.seeds import seed_for

if TYPE_CHECKING:
    from nas_kd.data import Data


class Balanced(Resampled):
    """Images drawn with replacement, each class equally often; an epoch has as many steps as one over all images.

    Source: torch.utils.data.WeightedRandomSampler, with draws that depend only on seed and epoch.
    """

    def __init__(self, split: Split) -> None:
        super().__init__(split)
        counts = torch.bincount(split.labels.clamp_min(0)).double()
        self._weights = 1 / counts[split.labels.clamp_min(0)]  # (N,)

    def batches(self, batch_size: int, *, epoch: int, seed: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """Iterate over an epoch with the usual number of batches."""
        generator = torch.Generator().manual_seed(seed_for(seed, "balanced", epoch))
        count = self.steps(batch_size) * batch_size
        order = torch.multinomial(self._weights, count, replacement=True, generator=generator)
        yield from self.split.batches(batch_size, epoch=epoch, seed=seed, order=order, rank=rank, world=world)


def drawn(data: Data) -> Split | Balanced:
    """Return the training images of trainings with labels, drawn as the ``balance`` of the data says."""
    return Balanced(data.train) if data.balance == "sampler" else data.train
