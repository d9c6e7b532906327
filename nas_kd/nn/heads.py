"""Heads, elastic and static, with equal parameter names; each gives logits and pooled features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd.errors import SettingError
from nas_kd.nn.act import activation
from nas_kd.nn.elastic import ElasticConv2d, ElasticLinear
from nas_kd.nn.norm import ElasticBatchNorm2d, ElasticLayerNorm, NormValues, Recorder
from nas_kd.space import Head, LinearHead, MobileHead, NormHead
from nas_kd.space.arch import Layer


def _dropped(pooled: Tensor, rate: float) -> Tensor:
    return F.dropout(pooled, rate, rate > 0.0)


class ElasticLinearHead(nn.Module):
    """Optional 1x1 convolution with norm and activation, global average pooling, linear classifier.

    Args:
        head: the description.
        inputs: largest number of input channels.
        num_classes: classes.
    """

    def __init__(self, head: LinearHead, inputs: int, num_classes: int) -> None:
        super().__init__()
        self.act = activation(head.act)
        self.features = {setting: int(head.named(setting)["features"]) for setting in head.choices()}
        features = self.features[head.largest()]
        if features:
            self.conv, self.bn = ElasticConv2d(inputs, features), ElasticBatchNorm2d(features)
        self.fc = ElasticLinear(features or inputs, num_classes)

    def widen(self, x: Tensor, setting: Layer, norm: NormValues | Recorder | None = None) -> Tensor:
        """Map (B, I, H, W) to (B, D, H, W): all of the head that has norms."""
        features = self.features[setting]
        return self.act(self.bn(self.conv(x, features), norm)) if features else x

    def forward(
        self, x: Tensor, setting: Layer, norm: NormValues | Recorder | None = None, dropout: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Map (B, I, H, W) to logits (B, classes) and pooled features (B, D)."""
        pooled = self.widen(x, setting, norm).mean((2, 3))
        return self.fc(_dropped(pooled, dropout)), pooled


class LinearHeadNet(nn.Module):
    """The static twin of ``ElasticLinearHead``."""

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


class ElasticMobileHead(nn.Module):
    """1x1 convolution with norm, pooling, 1x1 convolution without norm, linear classifier.

    Args:
        head: the description.
        inputs: largest number of input channels.
        num_classes: classes.
    """

    def __init__(self, head: MobileHead, inputs: int, num_classes: int) -> None:
        super().__init__()
        self.head, self.act, self.num_classes = head, activation(head.act), num_classes
        largest = head.resolve(head.largest(), inputs, num_classes)
        self.conv, self.bn = ElasticConv2d(inputs, largest["mid"]), ElasticBatchNorm2d(largest["mid"])
        self.mix = ElasticConv2d(largest["mid"], largest["features"])
        self.fc = ElasticLinear(largest["features"], num_classes)

    def widen(self, x: Tensor, setting: Layer, norm: NormValues | Recorder | None = None) -> Tensor:
        """Map (B, I, H, W) to (B, mid, H, W): all of the head that has norms."""
        mid = self.head.resolve(setting, x.shape[1], self.num_classes)["mid"]
        return self.act(self.bn(self.conv(x, mid), norm))

    def forward(
        self, x: Tensor, setting: Layer, norm: NormValues | Recorder | None = None, dropout: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Map (B, I, H, W) to logits (B, classes) and pooled features (B, D)."""
        x = self.widen(x, setting, norm).mean((2, 3), keepdim=True)
        features = int(self.head.named(setting)["features"])
        pooled = self.act(self.mix(x, features)).flatten(1)
        return self.fc(_dropped(pooled, dropout)), pooled


class MobileHeadNet(nn.Module):
    """The static twin of ``ElasticMobileHead``."""

    def __init__(self, inputs: int, mid: int, features: int, num_classes: int, act: str) -> None:
        super().__init__()
        self.act = activation(act)
        self.conv, self.bn = nn.Conv2d(inputs, mid, 1, bias=False), nn.BatchNorm2d(mid)
        self.mix = nn.Conv2d(mid, features, 1, bias=False)
        self.fc = nn.Linear(features, num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, I, H, W) to logits (B, classes) and pooled features (B, D)."""
        x = self.act(self.bn(self.conv(x)))
        pooled = self.act(self.mix(x.mean((2, 3), keepdim=True))).flatten(1)
        return self.fc(pooled), pooled


class ElasticNormHead(nn.Module):
    """Layer norm over channels, mean over positions, linear classifier.

    Args:
        inputs: largest number of input channels.
        num_classes: classes.
    """

    def __init__(self, inputs: int, num_classes: int) -> None:
        super().__init__()
        self.norm, self.fc = ElasticLayerNorm(inputs), ElasticLinear(inputs, num_classes)

    def forward(
        self, x: Tensor, setting: Layer, norm: NormValues | Recorder | None = None, dropout: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Map (B, I, H, W) to logits (B, classes) and pooled features (B, I)."""
        pooled = self.norm(x.flatten(2).transpose(1, 2)).mean(1)
        return self.fc(_dropped(pooled, dropout)), pooled


class NormHeadNet(nn.Module):
    """The static twin of ``ElasticNormHead``."""

    def __init__(self, inputs: int, num_classes: int) -> None:
        super().__init__()
        self.norm, self.fc = nn.LayerNorm(inputs), nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, I, H, W) to logits (B, classes) and pooled features (B, I)."""
        pooled = self.norm(x.flatten(2).transpose(1, 2)).mean(1)
        return self.fc(pooled), pooled


def elastic_head(head: Head, inputs: int, num_classes: int) -> nn.Module:
    """Build the shared head of a space."""
    if isinstance(head, LinearHead):
        return ElasticLinearHead(head, inputs, num_classes)
    if isinstance(head, MobileHead):
        return ElasticMobileHead(head, inputs, num_classes)
    if isinstance(head, NormHead):
        return ElasticNormHead(inputs, num_classes)
    raise TypeError(f"no elastic head is known for {type(head).__name__}")


def static_head(layer: Mapping[str, Any]) -> nn.Module:
    """Build a head from the last entry of ``ElasticSpace.layers``."""
    if layer["op"] == "head":
        return LinearHeadNet(layer["in"], layer["features"], layer["out"], layer["act"])
    if layer["op"] == "mobile_head":
        return MobileHeadNet(layer["in"], layer["mid"], layer["features"], layer["out"], layer["act"])
    if layer["op"] == "norm_head":
        return NormHeadNet(layer["in"], layer["out"])
    legal = "head, mobile_head or norm_head"
    raise SettingError("layers.op", layer["op"], legal, "was arch.json written by a newer version?")
