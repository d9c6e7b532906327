"""Networks that are trained together with the student: deep mutual learning and filter grafting."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nas_kd.errors import SettingError
from nas_kd.teacher.targets import TargetSource

if TYPE_CHECKING:
    from nas_kd.data import Batch
    from nas_kd.distill.pair import Pair


def fresh(model: nn.Module) -> nn.Module:
    """Return a copy of a network with new weights, drawn by each layer's own initialisation."""
    copy = deepcopy(model)
    for module in copy.modules():
        reset = getattr(module, "reset_parameters", None)
        if reset is not None:
            reset()
    return copy


class Peers(nn.Module, TargetSource):
    """The logits of peers as targets; the peers are trained in the same step.

    All networks are updated simultaneously, from the logits before the step.

    Args:
        count: number of networks, including the student.

    Raises:
        SettingError: fewer than two networks.

    Source: Zhang et al., arXiv 1706.00384, section 2.
    """

    def __init__(self, pair: Pair, count: int = 2) -> None:
        super().__init__()
        if count < 2:
            raise SettingError("peers", count, "at least 2 networks, including the student")
        self.networks = nn.ModuleList(fresh(pair.model) for _ in range(count - 1))

    @property
    def trained(self) -> nn.Module:
        return self

    def logits(self, batch: Batch) -> Tensor:
        """Return (K, B, C) logits, through which gradients flow to the peers."""
        return torch.stack([network(batch.x) for network in self.networks])


class Grafted(Peers):
    """Peers in a ring that mix their filters after every epoch, each with the one before it.

    Args:
        width: a in the weight: its range around one half.
        slope: c in the weight.

    Source: Meng et al., Filter grafting, arXiv 2001.05868, eq. 6 to 8.
    """

    def __init__(self, pair: Pair, count: int = 2, width: float = 0.4, slope: float = 500.0) -> None:
        super().__init__(pair, count)
        self.width = width
        self.slope = slope
        self._student = (pair.model,)  # a tuple keeps it out of this module's parameters

    @torch.no_grad()
    def after_epoch(self, epochs: int) -> None:
        """Mix the networks."""
        ring = [*self._student, *self.networks]
        states = [{name: t.clone() for name, t in network.state_dict().items()} for network in ring]
        for network, own, before in zip(ring, states, states[-1:] + states[:-1], strict=True):
            network.load_state_dict(graft(own, before, self.width, self.slope))


def graft(
    own: dict[str, Tensor], other: dict[str, Tensor], width: float = 0.4, slope: float = 500.0
) -> dict[str, Tensor]:
    """Mix two states, layer by layer, by the information in their filters.

    Returns:
        w own + (1 - w) other, w = a / pi atan(c (H(own) - H(other))) + 1/2 of every convolution; layers after a
        convolution (norm, classifier) use its weight, as in the authors' code; integer tensors are kept.
    """
    mixed = {}
    w = 0.5
    for name, tensor in own.items():
        if not tensor.is_floating_point():
            mixed[name] = tensor
            continue
        if tensor.ndim == 4:
            w = grafting_weight(float(entropy(tensor) - entropy(other[name])), width, slope)
        mixed[name] = w * tensor + (1 - w) * other[name]
    return mixed


def grafting_weight(difference: float, width: float = 0.4, slope: float = 500.0) -> float:
    """Return the own share for a difference of entropies: 1/2 at 0, within width / 2 of it."""
    return width / math.pi * math.atan(slope * difference) + 0.5


def entropy(weights: Tensor, bins: int = 10) -> Tensor:
    """Return the entropy in nats of a tensor's values in bins of equal width between their extremes."""
    flat = weights.detach().flatten().double()
    low = flat.min()
    high = flat.max()
    place = ((flat - low) / (high - low).clamp_min(1e-300) * bins).long().clamp_max(bins - 1)
    p = torch.bincount(place, minlength=bins).double() / len(flat)
    return -(p * torch.where(p > 0, p, 1.0).log()).sum()
