"""The bottleneck block of ResNet-D, elastic and static, with equal parameter names."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd.nn.act import drop_path
from nas_kd.nn.elastic import ElasticConv2d, ElasticGroupConv2d
from nas_kd.nn.norm import ElasticBatchNorm2d, NormValues, Recorder
from nas_kd.space.arch import Layer
from nas_kd.space.stages import BottleneckStage


def pooled(x: Tensor, stride: int) -> Tensor:
    """Average 2x2 pixels where the stride is 2; the odd last row and column average what there is.

    Args:
        x: (B, C, H, W).
        stride: 1 or 2.

    Returns:
        (B, C, H', W').
    """
    return F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False) if stride > 1 else x


class ElasticBottleneck(nn.Module):
    """1x1, 3x3, 1x1, each with norm, plus an average-pooled shortcut, ReLU.

    Args:
        stage: the stage description; it resolves a layer's settings to channel counts.
        inputs: largest number of input channels.
        outputs: largest number of output channels.
        stride: 1 or 2.
        projects: whether any choice changes the shape, so that a projecting shortcut is needed.
    """

    def __init__(self, stage: BottleneckStage, inputs: int, outputs: int, stride: int, projects: bool) -> None:
        super().__init__()
        self.stage = stage
        self.stride = stride
        mid = stage.mid(outputs, stage.expands[-1])
        self.conv1, self.bn1 = ElasticConv2d(inputs, mid), ElasticBatchNorm2d(mid)
        if stage.group_width:
            self.conv2: nn.Module = ElasticGroupConv2d(mid, stage.group_width, 3, stride)
        else:
            self.conv2 = ElasticConv2d(mid, mid, 3, stride)
        self.bn2 = ElasticBatchNorm2d(mid)
        self.conv3, self.bn3 = ElasticConv2d(mid, outputs), ElasticBatchNorm2d(outputs)
        nn.init.zeros_(self.bn3.weight)  # every block has a shortcut and starts as it
        if projects:
            self.shortcut, self.shortcut_bn = ElasticConv2d(inputs, outputs), ElasticBatchNorm2d(outputs)

    def forward(
        self, x: Tensor, layer: Layer, width: int, norm: NormValues | Recorder | None = None, drop: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Run the block.

        Args:
            x: (B, I, H, W).
            layer: (expand,).
            width: output channels.
            norm: see ``ElasticBatchNorm2d``.
            drop: stochastic depth rate.

        Returns:
            (B, width, H', W') after and before the last ReLU.
        """
        mid = self.stage.mid(width, layer[0])
        out = F.relu(self.bn1(self.conv1(x, mid), norm))
        out = F.relu(self.bn2(self.conv2(out, mid), norm))
        out = drop_path(self.bn3(self.conv3(out, width), norm), drop)
        if self.stride != 1 or x.shape[1] != width:
            x = self.shortcut_bn(self.shortcut(pooled(x, self.stride), width), norm)
        out = out + x
        return F.relu(out), out


class Bottleneck(nn.Module):
    """The static twin of ``ElasticBottleneck``.

    Args:
        inputs: input channels.
        mid: channels of the 3x3 convolution.
        outputs: output channels.
        stride: 1 or 2.
        group_width: channels a group of the 3x3 convolution, 0 for one group of all.
    """

    def __init__(self, inputs: int, mid: int, outputs: int, stride: int, group_width: int) -> None:
        super().__init__()
        groups = mid // group_width if group_width else 1
        self.conv1, self.bn1 = nn.Conv2d(inputs, mid, 1, bias=False), nn.BatchNorm2d(mid)
        self.conv2 = nn.Conv2d(mid, mid, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(mid)
        self.conv3, self.bn3 = nn.Conv2d(mid, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        nn.init.zeros_(self.bn3.weight)
        self.stride = stride
        self.projects = stride != 1 or inputs != outputs
        if self.projects:
            self.shortcut, self.shortcut_bn = nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor, drop: float = 0.0) -> tuple[Tensor, Tensor]:
        """Map (B, I, H, W) to (B, O, H', W') after and before the last ReLU."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = drop_path(self.bn3(self.conv3(out)), drop)
        out = out + (self.shortcut_bn(self.shortcut(pooled(x, self.stride))) if self.projects else x)
        return F.relu(out), out
