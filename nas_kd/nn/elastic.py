"""Layers that use the first channels of larger weights; the input width is read from the input."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def prefix(weight: Tensor, *sizes: int) -> Tensor:
    """Return the first ``sizes`` entries of the leading dimensions as a view, or the tensor itself if nothing is cut.

    Args:
        sizes: how many entries of dimension 0, 1, ...
    """
    shape = weight.shape
    if shape[: len(sizes)] == sizes:
        return weight  # even a full slice costs a graph node and a zero-filled gradient
    # a single strided view is one graph node; slices would be one per dimension
    return weight.as_strided(sizes + shape[len(sizes) :], weight.stride())


def centre(weight: Tensor, kernel: int, channels: int | None = None) -> Tensor:
    """Return the centre of square kernels (O, I, K, K) as a view: (channels, I, kernel, kernel).

    Args:
        kernel: output size, at most K, of the same parity.
        channels: number of output channels to keep; None for all.
    """
    outputs, inputs, _, size = weight.shape
    channels = outputs if channels is None else channels
    edge = (size - kernel) // 2
    if edge == 0 and channels == outputs:
        return weight
    stride = weight.stride()
    offset = weight.storage_offset() + edge * (stride[2] + stride[3])
    return weight.as_strided((channels, inputs, kernel, kernel), stride, offset)


class ElasticConv2d(nn.Conv2d):
    """Convolution over the first input and output channels; by default padded to keep the size."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        bias: bool = False,
        padding: int | None = None,
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride, kernel // 2 if padding is None else padding, bias=bias)

    def forward(self, x: Tensor, out_channels: int) -> Tensor:  # type: ignore[override]
        """Convolve (B, I, H, W) to (B, out_channels, H', W')."""
        weight = prefix(self.weight, out_channels, x.shape[1])
        bias = None if self.bias is None else prefix(self.bias, out_channels)
        return F.conv2d(x, weight, bias, self.stride, self.padding)


class ElasticDepthwise(nn.Conv2d):
    """Depthwise convolution over the first channels with the centre of the largest kernel, or a transform of it."""

    def __init__(self, channels: int, kernel: int, stride: int = 1, transform: nn.Module | None = None) -> None:
        super().__init__(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)
        self.transform = transform

    def kernel(self, channels: int, kernel: int) -> Tensor:
        """Return the weight of a subnet, (channels, 1, kernel, kernel)."""
        if self.transform is None:
            return centre(self.weight, kernel, channels)
        weight: Tensor = self.transform(prefix(self.weight, channels), kernel)
        return weight

    def forward(self, x: Tensor, kernel: int) -> Tensor:  # type: ignore[override]
        """Convolve (B, C, H, W) to (B, C, H', W')."""
        channels = x.shape[1]
        return F.conv2d(x, self.kernel(channels, kernel), None, self.stride, kernel // 2, groups=channels)


class ElasticGroupConv2d(nn.Conv2d):
    """Grouped convolution over the first groups: all groups have the same number of channels."""

    def __init__(self, channels: int, group_width: int, kernel: int, stride: int = 1) -> None:
        groups = channels // group_width
        super().__init__(channels, channels, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.group_width = group_width

    def forward(self, x: Tensor, channels: int) -> Tensor:  # type: ignore[override]
        """Convolve (B, channels, H, W) to (B, channels, H', W')."""
        weight = prefix(self.weight, channels)
        return F.conv2d(x, weight, None, self.stride, self.padding, groups=channels // self.group_width)


class ElasticLinear(nn.Linear):
    """Linear layer over the first input and output features."""

    def forward(self, x: Tensor, outputs: int | None = None) -> Tensor:
        """Map (..., D) to (..., outputs), all of them when None."""
        outputs = outputs or self.out_features
        bias = None if self.bias is None else prefix(self.bias, outputs)
        weight = prefix(self.weight, outputs, x.shape[-1])
        if (
            x.numel() == x.shape[-1]
        ):  # the rounding of a matrix-vector product in BLAS depends on the stride of the rows
            weight = weight.contiguous()
        return F.linear(x, weight, bias)
