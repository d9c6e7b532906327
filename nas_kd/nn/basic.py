"""The basic residual block (He et al. 2015), elastic and static, with equal parameter names."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd.nn.act import drop_path
from nas_kd.nn.elastic import ElasticConv2d
from nas_kd.nn.norm import ElasticBatchNorm2d, NormValues, Recorder
from nas_kd.space.arch import Layer


def subsample(x: Tensor, stride: int) -> Tensor:
    """Keep every ``stride``-th pixel: what a 1x1 convolution of that stride sees.

    It pools over one pixel, as the gradient of a strided slice is laid out channels first, and mixed layouts make
    the ReLU before it much slower in a channels_last network. A strided 1x1 convolution is avoided: on CPUs
    without AVX-512, oneDNN 3.13 (torch 2.15) overwrites foreign memory in its backward pass for channels_last
    inputs of fewer than eight channels.

    Args:
        x: (B, C, H, W).
        stride: 1 or 2.

    Returns:
        (B, C, H', W').
    """
    return F.avg_pool2d(x, 1, stride) if stride > 1 else x


class ElasticBasicBlock(nn.Module):
    """3x3, norm, ReLU, 3x3, norm, plus shortcut, ReLU, with elastic input, middle and output widths.

    Args:
        inputs: largest number of input channels.
        mid: largest number of channels between the convolutions.
        outputs: largest number of output channels.
        stride: 1 or 2.
        projects: whether any choice changes the shape, so that a projecting shortcut is needed.
    """

    def __init__(self, inputs: int, mid: int, outputs: int, stride: int, projects: bool) -> None:
        super().__init__()
        self.stride = stride
        self.conv1, self.bn1 = ElasticConv2d(inputs, mid, 3, stride), ElasticBatchNorm2d(mid)
        self.conv2, self.bn2 = ElasticConv2d(mid, outputs, 3), ElasticBatchNorm2d(outputs)
        if projects:
            self.shortcut = ElasticConv2d(inputs, outputs)
            self.shortcut_bn = ElasticBatchNorm2d(outputs)
        else:
            nn.init.zeros_(self.bn2.weight)  # the block starts as the identity

    def forward(
        self, x: Tensor, layer: Layer, width: int, norm: NormValues | Recorder | None = None, drop: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Run the block.

        Args:
            x: (B, I, H, W).
            layer: (mid,).
            width: output channels.
            norm: see ``ElasticBatchNorm2d``.
            drop: stochastic depth rate.

        Returns:
            (B, width, H', W') after and before the last ReLU.
        """
        out = F.relu(self.bn1(self.conv1(x, int(layer[0])), norm))
        out = drop_path(self.bn2(self.conv2(out, width), norm), drop)
        if self.stride != 1 or x.shape[1] != width:
            x = self.shortcut_bn(self.shortcut(subsample(x, self.stride), width), norm)
        out = out + x
        return F.relu(out), out


class BasicBlock(nn.Module):
    """The static twin of ``ElasticBasicBlock``.

    Args:
        inputs: input channels.
        mid: channels between the convolutions.
        outputs: output channels.
        stride: 1 or 2.
    """

    def __init__(self, inputs: int, mid: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, mid, 3, stride, 1, bias=False), nn.BatchNorm2d(mid)
        self.conv2, self.bn2 = nn.Conv2d(mid, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.stride = stride
        self.projects = stride != 1 or inputs != outputs
        if self.projects:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False)
            self.shortcut_bn = nn.BatchNorm2d(outputs)
        else:
            nn.init.zeros_(self.bn2.weight)

    def forward(self, x: Tensor, drop: float = 0.0) -> tuple[Tensor, Tensor]:
        """Map (B, I, H, W) to (B, O, H', W') after and before the last ReLU."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = drop_path(self.bn2(self.conv2(out)), drop)
        out = out + (self.shortcut_bn(self.shortcut(subsample(x, self.stride))) if self.projects else x)
        return F.relu(out), out
