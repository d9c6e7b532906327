"""A shortcut without weights to more channels: those of the input, and zeros."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Widen(nn.Module):
    """Put the channels of an image among more channels, the others zero.

    Args:
        in_width: channels of the input.
        width: channels of the output; what is new is divided evenly before and after.

    Source: option A of He et al., Deep Residual Learning for Image Recognition, 2015.
    """

    index: Tensor

    def __init__(self, in_width: int, width: int) -> None:
        super().__init__()
        before = (width - in_width) // 2
        places = range(-before, width - before)
        self.set_sources([place if 0 <= place < in_width else -1 for place in places], in_width)

    def set_sources(self, sources: Sequence[int], in_width: int) -> None:
        """Say where each channel of the output comes from.

        Args:
            sources: for each the channel of the input, -1 for zeros.
            in_width: channels of the input.
        """
        self.sources = tuple(int(source) for source in sources)
        self.in_width = in_width
        taken = [source for source in self.sources if source >= 0]
        first = self.sources.index(0) if taken and taken[0] == 0 else 0
        run = tuple(range(in_width))
        self.before = first if taken == list(run) and self.sources[first : first + in_width] == run else None
        index = torch.tensor([source if source >= 0 else in_width for source in self.sources])
        device = self.index.device if "index" in self._buffers else index.device
        self.register_buffer("index", index.to(device), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, I, H, W) to (B, O, H, W)."""
        if self.before is not None:
            return F.pad(x, (0, 0, 0, 0, self.before, len(self.sources) - self.before - self.in_width))
        return F.pad(x, (0, 0, 0, 0, 0, 1)).index_select(1, self.index)
