"""A batch of images or texts for a network."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from nas_kd.nn import inputs


class Batch(NamedTuple):
    """Images or texts ready for a network.

    ``x`` (B, C, H, W) float32, normalised by the data's mean and std, channels_last, or of texts a dictionary of
    (B, L) int64 tensors: ``input_ids``, ``attention_mask`` and perhaps ``token_type_ids``; ``y`` (B,) int64 class
    numbers, or (B, L) float32 for multi-label and regression; both on the data's device. ``index`` (B,) int64, the
    image's number in its split; ``view`` (B,) int64, its view, or -1 if it is not one of the numbered views; both
    always on the CPU.
    """

    x: Any
    y: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which has no use on a batch
    view: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch with its images and labels on a device."""
        return self._replace(x=inputs.moved(self.x, device), y=self.y.to(device, non_blocking=True))

    def parts(self, count: int) -> list[Batch]:
        """Split the batch into ``count`` parts of equal size, without a copy.

        Raises:
            ValueError: the parts would not be equal.
        """
        size, rest = divmod(len(self.y), count)
        if rest:
            raise ValueError(f"count={count}: expected a divisor of {len(self.y)}, the number of images")
        cuts = [slice(start * size, (start + 1) * size) for start in range(count)]
        return [Batch(inputs.picked(self.x, cut), self.y[cut], self.index[cut], self.view[cut]) for cut in cuts]
