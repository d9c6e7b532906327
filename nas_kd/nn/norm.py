"""Batch norm without running statistics: they are passed in, or recorded, or taken from the batch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NormValues = Mapping[str, tuple[Tensor, Tensor]]  # path of a norm -> (mean, variance), each (C,)


class Recorder:
    """Pools mean and variance of every norm's input over all batches of a pass.

    The pooled variance is exact by the law of total variance: the mean of the batch variances plus the
    variance of the batch means. Averaging batch variances alone is too small (9 % at batch 8).
    """

    def __init__(self) -> None:
        self._sums: dict[str, tuple[int, Tensor, Tensor]] = {}

    def add(self, path: str, mean: Tensor, variance: Tensor, count: int) -> None:
        """Add one batch.

        Args:
            path: which norm.
            mean: (C,) mean of the batch.
            variance: (C,) biased variance of the batch.
            count: numbers a channel that were averaged.
        """
        mean, variance = mean.double(), variance.double()
        first, second = mean * count, (variance + mean.square()) * count
        if path in self._sums:
            n, a, b = self._sums[path]
            count, first, second = count + n, first + a, second + b
        self._sums[path] = (count, first, second)

    def values(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return path -> (mean, biased variance), each (C,) float32."""
        pooled = {}
        for path, (count, first, second) in self._sums.items():
            mean = first / count
            variance = (second / count - mean.square()).clamp_min(0.0)  # rounding may leave -1e-17
            pooled[path] = (mean.float(), variance.float())
        return pooled


def batch_statistics(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise by the batch and return what was used.

    Args:
        x: (B, C, H, W).
        weight: (C,) scale.
        bias: (C,) shift.
        eps: added to the variance.

    Returns:
        The normalised x, the batch mean (C,) and the biased batch variance (C,).
    """
    mean = torch.zeros(x.shape[1], dtype=torch.float32, device=x.device)
    variance = torch.zeros_like(mean)
    out = F.batch_norm(x, mean, variance, weight, bias, True, 1.0, eps)  # momentum 1 hands out the statistics
    count = x.numel() // x.shape[1]
    return out, mean, variance * ((count - 1) / count)  # torch hands out the unbiased variance


class ElasticBatchNorm2d(nn.Module):
    """Batch norm over the first channels of its parameters.

    Args:
        channels: largest number of channels.
        eps: added to the variance.
    """

    path: str  # set by the supernet: the key of this norm in NormValues

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor, norm: NormValues | Recorder | None = None) -> Tensor:
        """Normalise.

        Args:
            x: (B, C, H, W).
            norm: None takes the batch's statistics, values are applied, a recorder takes and records them.

        Returns:
            (B, C, H, W).
        """
        channels = x.shape[1]
        whole = channels == self.weight.shape[0]
        weight = self.weight if whole else self.weight[:channels]
        bias = self.bias if whole else self.bias[:channels]
        if norm is None:
            return F.batch_norm(x, None, None, weight, bias, True, 0.0, self.eps)
        if isinstance(norm, Recorder):
            out, mean, variance = batch_statistics(x, weight, bias, self.eps)
            norm.add(self.path, mean, variance, x.numel() // channels)
            return out
        mean, variance = norm[self.path]
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, self.eps)


class ElasticLayerNorm(nn.Module):
    """Layer norm over the first channels of its parameters; it needs no statistics.

    Args:
        channels: largest number of channels.
        eps: added to the variance.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (..., C) over C."""
        channels = x.shape[-1]
        return F.layer_norm(x, (channels,), self.weight[:channels], self.bias[:channels], self.eps)
