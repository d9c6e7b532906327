"""Layers that use the first channels of larger weights; the input width is read from the input."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def prefix(weight: Tensor, *sizes: int) -> Tensor:
    """Take the first entries of the leading dimensions.

    Args:
        weight: any tensor.
        sizes: how many entries of dimension 0, 1, ...

    Returns:
        A view, or the tensor itself when nothing is cut off: slicing all of it would still cost a node in
        the graph and a zero-filled gradient.
    """
    for dim, size in enumerate(sizes):
        if weight.shape[dim] != size:
            weight = weight.narrow(dim, 0, size)
    return weight


def centre(weight: Tensor, kernel: int) -> Tensor:
    """Take the centre of a square kernel.

    Args:
        weight: (O, I, K, K).
        kernel: wanted size, K or smaller, of the same parity.

    Returns:
        (O, I, kernel, kernel).
    """
    edge = (weight.shape[-1] - kernel) // 2
    return weight[..., edge : edge + kernel, edge : edge + kernel] if edge else weight


class ElasticConv2d(nn.Conv2d):
    """Convolution over the first input and output channels, padded to keep the size."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, *, bias: bool = False) -> None:
        super().__init__(inputs, outputs, kernel, stride, kernel // 2, bias=bias)

    def forward(self, x: Tensor, out_channels: int) -> Tensor:  # type: ignore[override]
        """Convolve (B, I, H, W) to (B, out_channels, H', W')."""
        weight = prefix(self.weight, out_channels, x.shape[1])
        bias = None if self.bias is None else prefix(self.bias, out_channels)
        return F.conv2d(x, weight, bias, self.stride, self.padding)


class ElasticDepthwise(nn.Conv2d):
    """Depthwise convolution over the first channels with the centre of the largest kernel."""

    def __init__(self, channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)

    def forward(self, x: Tensor, kernel: int) -> Tensor:  # type: ignore[override]
        """Convolve (B, C, H, W) to (B, C, H', W')."""
        channels = x.shape[1]
        weight = centre(prefix(self.weight, channels), kernel)
        return F.conv2d(x, weight, None, self.stride, kernel // 2, groups=channels)


class ElasticLinear(nn.Linear):
    """Linear layer over the first input features."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, D) to (B, outputs)."""
        return F.linear(x, prefix(self.weight, self.out_features, x.shape[1]), self.bias)
