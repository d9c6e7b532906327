"""A batch of images for a network."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """Images ready for a network.

    ``x`` (B, C, H, W) float32, normalised by the data's mean and std, channels_last; ``y`` (B,) int64 class
    numbers, or (B, L) float32 for multi-label and regression; both on the data's device. ``index`` (B,) int64, the
    image's number in its split; ``view`` (B,) int64, its view, or -1 if it is not one of the numbered views; both
    always on the CPU.
    """

    x: Tensor
    y: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which has no use on a batch
    view: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch with its images and labels on a device."""
        return self._replace(x=self.x.to(device, non_blocking=True), y=self.y.to(device, non_blocking=True))

    def parts(self, count: int) -> list[Batch]:
        """Split the batch into ``count`` parts of equal size, without a copy.

        Raises:
            ValueError: the parts would not be equal.
        """
        size, rest = divmod(len(self.y), count)
        if rest:
            raise ValueError(f"count={count}: expected a divisor of {len(self.y)}, the number of images")
        cuts = [slice(start * size, (start + 1) * size) for start in range(count)]
        return [Batch(self.x[cut], self.y[cut], self.index[cut], self.view[cut]) for cut in cuts]
