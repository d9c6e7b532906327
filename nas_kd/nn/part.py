"""Base classes for the shared weights of stems, blocks and heads; channels that may be reordered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nas_kd.nn.norm import NormValues, Recorder

Plans = Sequence[Mapping[str, Any]]  # resolved layers


class Side(NamedTuple):
    """A dimension of a tensor that runs over the channels.

    Args:
        unit: consecutive entries that belong to one channel.
    """

    tensor: Tensor
    dim: int
    unit: int = 1


class Channels(NamedTuple):
    """Channels between two layers, which may be reordered without changing the network.

    Args:
        reader: the weight that reads them; its magnitude is their importance.
        others: all other tensors that run over them.
        used: channel counts of the subnets in use; channels are sorted only between two such counts.
        fixed: number of leading channels that stay where they are.
    """

    reader: Side
    others: tuple[Side, ...]
    used: tuple[int, ...]
    fixed: int = 0

    def importance(self) -> Tensor:
        """Return the L1 norm of the weights that read each channel, (C,)."""
        tensor, dim, unit = self.reader
        return tensor.detach().abs().transpose(0, dim).flatten(1).sum(1).unflatten(0, (-1, unit)).sum(1)

    def order(self) -> Tensor:
        """Return the channel indices, (C,), by descending importance, within the bounds of ``used``."""
        importance = self.importance()
        borders = sorted({self.fixed, *(n for n in self.used if n > self.fixed), len(importance)})
        parts = [torch.arange(self.fixed, device=importance.device)]
        for start, end in pairwise(borders):
            parts.append(importance[start:end].argsort(descending=True, stable=True) + start)
        return torch.cat(parts)


def producers(*modules: nn.Module, unit: int = 1) -> tuple[Side, ...]:
    """Return the weights and biases of layers that produce channels, and of norms and depthwise layers on them."""
    tensors = (getattr(module, name) for module in modules for name in ("weight", "bias"))
    return tuple(Side(tensor, 0, unit) for tensor in tensors if tensor is not None)


def consumer(module: nn.Module, unit: int = 1) -> Side:
    """Return the weight of the layer that reads channels."""
    return Side(module.weight, 1, unit)  # type: ignore[arg-type]


def sizes(plans: Plans, name: str) -> tuple[int, ...]:
    """Return the channel counts of resolved layers, ascending."""
    return tuple(sorted({plan[name] for plan in plans}))


class ElasticPart(nn.Module):
    """The weights that all choices of a stem, a block or a head share."""

    def channels(self, plans: Plans) -> Iterator[Channels]:
        """Yield the inner channels that may be sorted without changing the networks of the resolved ``plans``."""
        raise NotImplementedError(f"{type(self).__name__}.channels: yield nothing if it has no inner channels")


class ElasticHead(ElasticPart):
    """The weights that all choices of a head share."""

    def widen(self, x: Tensor, setting: tuple[float, ...], norm: NormValues | Recorder | None = None) -> Tensor:
        """Run the part of the head that has batch norms, which is all that calibration needs."""
        return x
