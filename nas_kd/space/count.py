"""MACs and parameters in plain integers: the formulas that all blocks use.

Everywhere in this project, MACs are those of convolutions and linear layers: norms, activations, pooling and
resizing are not counted, and neither are the two matrix products of attention, which have no weights (for N
tokens and inner width D they are 2 N^2 D per layer).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from nas_kd.space.arch import Cost

if TYPE_CHECKING:
    from nas_kd.nn.static import Kind


def make_divisible(value: float, divisor: int = 8) -> int:
    """Round to the nearest multiple (ties up), at least ``divisor``, one step up if rounding lost over 10 %.

    Source: MobileNetV2 reference code, used by OFA and AttentiveNAS.
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def conv_cost(inputs: int, outputs: int, kernel: int, pixels: int, *, bias: bool = False) -> Cost:
    """Count a convolution (``kernel=1``: a linear layer) from the inputs of one group and the output pixels."""
    weights = inputs * outputs * kernel * kernel
    return Cost(weights * pixels, weights + (outputs if bias else 0))


def norm_cost(channels: int) -> Cost:
    """Count a batch or layer norm with weight and bias."""
    return Cost(0, 2 * channels)


def strided(size: int, stride: int) -> int:
    """Return the output height for an odd kernel k with padding k // 2: ceil(size / stride)."""
    return -(-size // stride)


def count_layers(layers: Iterable[Mapping[str, Any]], size: int, kinds: Mapping[str, Kind]) -> Cost:
    """Count a chain of resolved layers; ``size`` is the height of the first layer's input in pixels."""
    total = Cost(0, 0)
    for layer in layers:
        cost, size = kinds[layer["op"]].count(layer, size)
        total = total + cost
    return total
