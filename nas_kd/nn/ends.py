"""Stem and head, elastic and static, with equal parameter names."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd.nn.act import activation
from nas_kd.nn.elastic import ElasticConv2d, ElasticLinear
from nas_kd.nn.norm import ElasticBatchNorm2d, NormValues, Recorder


class ElasticStem(nn.Module):
    """3x3 convolution, norm, activation: not searched, but without running statistics.

    Args:
        in_chans: channels of the input image.
        width: output channels.
        stride: 1 or 2.
        act: activation.
    """

    def __init__(self, in_chans: int, width: int, stride: int, act: str) -> None:
        super().__init__()
        self.width, self.act = width, activation(act)
        self.conv, self.bn = ElasticConv2d(in_chans, width, 3, stride), ElasticBatchNorm2d(width)

    def forward(self, x: Tensor, norm: NormValues | Recorder | None = None) -> Tensor:
        """Map (B, in_chans, H, W) to (B, width, H', W')."""
        return self.act(self.bn(self.conv(x, self.width), norm))


class Stem(nn.Module):
    """The static twin of ``ElasticStem``."""

    def __init__(self, in_chans: int, width: int, stride: int, act: str) -> None:
        super().__init__()
        self.act = activation(act)
        self.conv, self.bn = nn.Conv2d(in_chans, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_chans, H, W) to (B, width, H', W')."""
        return self.act(self.bn(self.conv(x)))


class ElasticHead(nn.Module):
    """Optional 1x1 convolution with norm and activation, global average pooling, linear classifier.

    Args:
        inputs: largest number of input channels.
        features: channels of the 1x1 convolution, 0 for none.
        num_classes: classes.
        act: activation behind the 1x1 convolution.
    """

    def __init__(self, inputs: int, features: int, num_classes: int, act: str) -> None:
        super().__init__()
        self.features, self.act = features, activation(act)
        if features:
            self.conv, self.bn = ElasticConv2d(inputs, features), ElasticBatchNorm2d(features)
        self.fc = ElasticLinear(features or inputs, num_classes)

    def forward(
        self, x: Tensor, norm: NormValues | Recorder | None = None, dropout: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Map (B, I, H, W) to logits (B, classes) and pooled features (B, D)."""
        if self.features:
            x = self.act(self.bn(self.conv(x, self.features), norm))
        pooled = x.mean((2, 3))
        return self.fc(F.dropout(pooled, dropout, dropout > 0.0)), pooled


class Head(nn.Module):
    """The static twin of ``ElasticHead``."""

    def __init__(self, inputs: int, features: int, num_classes: int, act: str) -> None:
        super().__init__()
        self.features, self.act = features, activation(act)
        if features:
            self.conv, self.bn = nn.Conv2d(inputs, features, 1, bias=False), nn.BatchNorm2d(features)
        self.fc = nn.Linear(features or inputs, num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, I, H, W) to logits (B, classes) and pooled features (B, D)."""
        if self.features:
            x = self.act(self.bn(self.conv(x)))
        pooled = x.mean((2, 3))
        return self.fc(pooled), pooled
