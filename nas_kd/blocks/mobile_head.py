"""The classifier of MobileNetV3."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd.errors import SettingError
from nas_kd.nn.act import activation
from nas_kd.nn.elastic import ElasticConv2d, ElasticLinear
from nas_kd.nn.norm import ElasticBatchNorm2d, NormValues, Recorder
from nas_kd.nn.part import Channels, ElasticHead, Plans, consumer, producers, sizes
from nas_kd.space.arch import Cost, Layer, Setting
from nas_kd.space.count import conv_cost, norm_cost
from nas_kd.space.ends import Head, several
from nas_kd.space.part import ascending


@dataclass(frozen=True)
class MobileHead(Head):
    """MobileNetV3's head: 1x1 convolution with norm, pooling, 1x1 convolution without norm, classifier.

    Args:
        features: channels between pooling and classifier, or several to choose from.
        expand: channels of the first convolution as a multiple of its input, when ``channels`` is 0.
        channels: fixed channels of the first convolution, or 0.
        act: activation of both.

    Source: MobileNetV3 (Howard et al. 2019), section 5.1.
    """

    features: int | tuple[int, ...] = 1280
    expand: int = 6
    channels: int = 0
    act: str = "hardswish"
    op: ClassVar[str] = "mobile_head"
    fields: ClassVar[tuple[str, ...]] = ("features",)

    def __post_init__(self) -> None:
        ascending("head.features", several(self.features))
        for name, least in (("expand", 1), ("channels", 0)):
            if getattr(self, name) < least:
                raise SettingError(f"head.{name}", getattr(self, name), f"an integer of at least {least}")

    def options(self) -> tuple[tuple[Setting, ...], ...]:
        return (several(self.features),)

    def resolve(self, setting: Layer, in_width: int, num_classes: int) -> dict[str, Any]:
        mid = self.channels or in_width * self.expand
        features = int(self.named(setting)["features"])
        named = {"in": in_width, "mid": mid, "features": features, "out": num_classes}
        return {"op": "mobile_head"} | named | {"act": self.act}

    @staticmethod
    def count(layer: Mapping[str, Any], size: int) -> tuple[Cost, int]:
        cost = conv_cost(layer["in"], layer["mid"], 1, size * size) + norm_cost(layer["mid"])
        cost = cost + conv_cost(layer["mid"], layer["features"], 1, 1)
        return cost + conv_cost(layer["features"], layer["out"], 1, 1, bias=True), 1

    @staticmethod
    def static(layer: Mapping[str, Any]) -> nn.Module:
        return MobileHeadNet(layer["in"], layer["mid"], layer["features"], layer["out"], layer["act"])

    def elastic(self, inputs: int, num_classes: int) -> ElasticHead:
        return ElasticMobileHead(self, inputs, num_classes)

    def label(self, setting: Layer) -> str:
        features = self.named(setting)["features"]
        return f"{features} features"


class ElasticMobileHead(ElasticHead):
    """1x1 convolution with norm, pooling, 1x1 convolution without norm, linear classifier."""

    def __init__(self, head: MobileHead, inputs: int, num_classes: int) -> None:
        super().__init__()
        self.head = head
        self.act = activation(head.act)
        self.num_classes = num_classes
        largest = head.resolve(head.largest(), inputs, num_classes)
        self.conv = ElasticConv2d(inputs, largest["mid"])
        self.bn = ElasticBatchNorm2d(largest["mid"])
        self.mix = ElasticConv2d(largest["mid"], largest["features"])
        self.fc = ElasticLinear(largest["features"], num_classes)

    def widen(self, x: Tensor, setting: Layer, norm: NormValues | Recorder | None = None) -> Tensor:
        """Map (B, I, H, W) to (B, mid, H, W): the part of the head that has norms."""
        mid = self.head.resolve(setting, x.shape[1], self.num_classes)["mid"]
        return self.act(self.bn(self.conv(x, mid), norm))

    def forward(
        self, x: Tensor, setting: Layer, norm: NormValues | Recorder | None = None, dropout: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Map (B, I, H, W) to logits (B, classes) and pooled features (B, D)."""
        x = self.widen(x, setting, norm).mean((2, 3), keepdim=True)
        features = int(self.head.named(setting)["features"])
        pooled = self.act(self.mix(x, features)).flatten(1)
        return self.fc(F.dropout(pooled, dropout, dropout > 0.0)), pooled

    def channels(self, plans: Plans) -> Iterator[Channels]:
        yield Channels(consumer(self.mix), producers(self.conv, self.bn), sizes(plans, "mid"))
        yield Channels(consumer(self.fc), producers(self.mix), sizes(plans, "features"))


class MobileHeadNet(nn.Module):
    """The static twin of ``ElasticMobileHead``."""

    def __init__(self, inputs: int, mid: int, features: int, num_classes: int, act: str) -> None:
        super().__init__()
        self.act = activation(act)
        self.conv = nn.Conv2d(inputs, mid, 1, bias=False)
        self.bn = nn.BatchNorm2d(mid)
        self.mix = nn.Conv2d(mid, features, 1, bias=False)
        self.fc = nn.Linear(features, num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, I, H, W) to logits (B, classes) and pooled features (B, D)."""
        x = self.act(self.bn(self.conv(x)))
        pooled = self.act(self.mix(x.mean((2, 3), keepdim=True))).flatten(1)
        return self.fc(pooled), pooled
