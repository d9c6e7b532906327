"""Training as on 8 bits: weights and activations rounded as an int8 runtime does, gradients passed through."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

LOW, HIGH = -128, 127  # of signed activations
MOST = 127  # of symmetric weights
MOMENTUM = 0.99  # of the averages of activations' ends
LAYERS = (nn.Conv2d, nn.Linear)
RANGE = "int8_range"  # name of a layer's range among its modules


def rounded(x: Tensor, scale: Tensor, zero: Tensor | float, low: int, high: int) -> Tensor:
    """Round to whole multiples of a scale, within bounds; the gradient is 1 within them and 0 outside.

    Args:
        x: of any shape.
        scale: above 0, of a shape that broadcasts.
        zero: the whole number that stands for 0.
        low, high: the smallest and the largest whole number.

    Returns:
        The values that the whole numbers stand for.

    Source: the straight-through estimator (Bengio et al., arXiv 1308.3432), clipped as in Jacob et al., arXiv
        1712.05877, equation 12.
    """
    place = (x / scale + zero).clamp(low, high)
    place = place + (place.round() - place).detach()
    return (place - zero) * scale


class WeightRounding(nn.Module):
    """8-bit weights, symmetric, each output channel with a scale of its own.

    A batch norm that follows multiplies a channel by one number, and so its scale: what is rounded here is what is
    rounded where the norm was folded into the weights.
    """

    def forward(self, weight: Tensor) -> Tensor:
        """Round (out, ...) weights."""
        largest = weight.detach().flatten(1).abs().amax(1)
        scale = (largest / MOST).clamp_min(torch.finfo(weight.dtype).tiny).view(-1, *[1] * (weight.ndim - 1))
        return rounded(weight, scale, 0.0, -MOST, MOST)


class ActivationRange(nn.Module):
    """The range of one tensor's values, which holds 0: an average over training batches, kept in evaluation."""

    ends: Tensor
    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("ends", torch.zeros(2))
        self.register_buffer("seen", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Move the ends towards those of a batch; the first one sets them."""
        now = torch.stack([x.amin().clamp_max(0.0), x.amax().clamp_min(0.0)]).to(self.ends.dtype)
        self.ends.copy_(torch.where(self.seen, torch.lerp(now, self.ends, MOMENTUM), now))
        self.seen.fill_(True)

    def forward(self, x: Tensor) -> Tensor:
        """Round activations of any shape to 8 bits, one scale for all; before any batch was seen, to themselves."""
        if self.training:
            self.observe(x)
        low, high = self.ends.to(x.dtype)
        scale = ((high - low) / (HIGH - LOW)).clamp_min(torch.finfo(x.dtype).tiny)
        zero = (LOW - low / scale).round()
        return torch.where(self.seen, rounded(x, scale, zero, LOW, HIGH), x)


@contextmanager
def faked(network: nn.Module) -> Iterator[None]:
    """Round weights and inputs of all convolutions and linear layers while the context lasts.

    Args:
        network: afterwards it has the weights that were trained, unrounded, and none of the ranges.
    """
    layers = [module for module in network.modules() if isinstance(module, LAYERS)]
    like = next(network.parameters())
    hooks = []
    for layer in layers:
        layer.register_module(RANGE, ActivationRange().to(like.device))
        parametrize.register_parametrization(layer, "weight", WeightRounding())
        hooks.append(layer.register_forward_pre_hook(_round_input))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for layer in layers:
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
            delattr(layer, RANGE)
            if "bias" in layer._parameters:  # behind the weight again, which was taken out and put in
                layer.register_parameter("bias", layer._parameters.pop("bias"))


def _round_input(layer: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    return (getattr(layer, RANGE)(given[0]), *given[1:])
