"""Batch norm without running statistics: they are passed in, recorded, or taken from the batch."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd.nn.elastic import prefix
from nas_kd.runtime.ranks import world

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # what torch's batch norms measure
NormValues = Mapping[str, tuple[Tensor, Tensor]]  # path of a norm -> (mean, variance), each (C,)


class Recorder:
    """Pools mean and variance of every norm's input over all batches of a pass.

    The pooled variance is exact by the law of total variance: the mean of the batch variances plus the
    variance of the batch means. The mean of the batch variances alone is too small (by 9 % at batch size 8). All norms
    of a batch are pooled together, in a few operations in total instead of a few per norm.
    """

    def __init__(self) -> None:
        self._batch: dict[Hashable, tuple[Tensor, Tensor, int]] = {}
        self._keys: list[Hashable] = []
        self._sizes: list[int] = []
        self._sums: Tensor | None = None  # (3, channels of all norms): count, sum and sum of squares, float64

    def add(self, path: Any, mean: Tensor, variance: Tensor, count: int) -> None:
        """Add one batch's mean (C,) and unbiased variance (C,).

        Args:
            path: of the norm; its second occurrence starts the next batch.
            variance: (C,) unbiased variance of the batch, as torch returns it.
            count: values per channel in the batch.
        """
        if path in self._batch:
            self._pool()
        self._batch[path] = (mean, variance, count)

    def _pool(self) -> None:
        batch = self._batch
        self._batch = {}
        if not batch:
            return
        means, variances, counts = zip(*batch.values(), strict=True)
        mean = torch.cat(means)
        variance = torch.cat(variances)
        if mean.device.type == "mps":  # has no float64
            mean = mean.cpu()
            variance = variance.cpu()
        mean = mean.double()
        variance = variance.double()
        sizes = [len(part) for part in means]
        count = torch.tensor(counts, dtype=torch.float64).repeat_interleave(torch.tensor(sizes)).to(mean.device)
        sums = torch.stack((count, count * mean, (count - 1) * variance + count * mean.square()))
        if self._sums is None:
            self._keys = list(batch)
            self._sizes = sizes
            self._sums = sums
            self._like = means[0]
        elif self._keys == list(batch) and self._sizes == sizes:
            self._sums += sums
        else:
            raise ValueError("every batch must pass through the same norms in the same order")

    def reduce(self) -> None:
        """Sum over all processes of the group in one all-reduce; each must have recorded the same norms."""
        self._pool()
        if self._sums is not None and world() > 1:
            dist.all_reduce(self._sums)

    def values(self) -> dict[Any, tuple[Tensor, Tensor]]:
        """Return path -> (mean, biased variance), each (C,), in the dtype that was recorded."""
        self._pool()
        if self._sums is None:
            return {}
        count, first, second = self._sums
        mean = first / count
        variance = (second / count - mean.square()).clamp_min(0.0)  # rounding may leave -1e-17
        parts = [[part.clone() for part in flat.to(self._like).split(self._sizes)] for flat in (mean, variance)]
        return dict(zip(self._keys, zip(*parts, strict=True), strict=True))


class ElasticBatchNorm2d(nn.Module):
    """Batch norm over the first channels of its parameters."""

    path: str  # set by the supernet: the key of this norm in NormValues

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor, norm: NormValues | Recorder | None = None) -> Tensor:
        """Normalise (B, C, H, W) by ``norm``, else by the batch's statistics, which a recorder also records."""
        channels = x.shape[1]
        weight = prefix(self.weight, channels)
        bias = prefix(self.bias, channels)
        if norm is None:
            return F.batch_norm(x, None, None, weight, bias, True, 0.0, self.eps)
        if isinstance(norm, Recorder):
            mean, variance = weight.new_zeros(2, channels).unbind()
            out = F.batch_norm(x, mean, variance, weight, bias, True, 1.0, self.eps)  # momentum 1 returns them
            norm.add(self.path, mean, variance, x.numel() // channels)
            return out
        mean, variance = norm[self.path]
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, self.eps)


class ElasticLayerNorm(nn.Module):
    """Layer norm over the first channels of its parameters; it needs no statistics."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (..., C) over C."""
        channels = x.shape[-1]
        return F.layer_norm(x, (channels,), prefix(self.weight, channels), prefix(self.bias, channels), self.eps)
