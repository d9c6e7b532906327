"""The usual classifier: pooling and one linear layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd.nn.act import activation
from nas_kd.nn.elastic import ElasticConv2d, ElasticLinear
from nas_kd.nn.norm import ElasticBatchNorm2d, NormValues, Recorder
from nas_kd.nn.part import Channels, ElasticHead, Plans, consumer, producers, sizes
from nas_kd.space.arch import Cost, Layer, Setting
from nas_kd.space.count import conv_cost, norm_cost
from nas_kd.space.ends import Head, several
from nas_kd.space.part import EPS, IF_CHANGED, ascending


@dataclass(frozen=True)
class LinearHead(Head):
    """Global average pooling and a linear classifier, optionally after a 1x1 convolution with a norm.

    Args:
        features: channels of the 1x1 convolution, several to choose from, or 0 for none.
        act: activation after that convolution.
        eps: what its norm adds to the variance.
    """

    features: int | tuple[int, ...] = 0
    act: str = "relu"
    eps: float = field(default=EPS, metadata=IF_CHANGED)
    op: ClassVar[str] = "head"
    fields: ClassVar[tuple[str, ...]] = ("features",)
    typed: ClassVar[bool] = False  # was once the only head, hashed without its type

    def __post_init__(self) -> None:
        if self.features != 0:
            ascending("head.features", several(self.features))

    def options(self) -> tuple[tuple[Setting, ...], ...]:
        return (several(self.features),)

    def resolve(self, setting: Layer, in_width: int, num_classes: int) -> dict[str, Any]:
        features = int(self.named(setting)["features"])
        eps = {} if self.eps == EPS else {"eps": self.eps}
        return {"op": "head", "in": in_width, "features": features, "out": num_classes, "act": self.act} | eps

    @staticmethod
    def count(layer: Mapping[str, Any], size: int) -> tuple[Cost, int]:
        cost = Cost(0, 0)
        if layer["features"]:
            cost = conv_cost(layer["in"], layer["features"], 1, size * size) + norm_cost(layer["features"])
        return cost + conv_cost(layer["features"] or layer["in"], layer["out"], 1, 1, bias=True), 1

    @staticmethod
    def static(layer: Mapping[str, Any]) -> nn.Module:
        return LinearHeadNet(layer["in"], layer["features"], layer["out"], layer["act"], layer.get("eps", EPS))

    def elastic(self, inputs: int, num_classes: int) -> ElasticHead:
        return ElasticLinearHead(self, inputs, num_classes)

    def label(self, setting: Layer) -> str:
        features = self.named(setting)["features"]
        return f"{features} features" if features else ""


class ElasticLinearHead(ElasticHead):
    """Optional 1x1 convolution with norm and activation, global average pooling, linear classifier."""

    def __init__(self, head: LinearHead, inputs: int, num_classes: int) -> None:
        super().__init__()
        self.act = activation(head.act)
        self.features = {setting: int(head.named(setting)["features"]) for setting in head.choices()}
        features = self.features[head.largest()]
        if features:
            self.conv = ElasticConv2d(inputs, features)
            self.bn = ElasticBatchNorm2d(features, head.eps)
        self.fc = ElasticLinear(features or inputs, num_classes)

    def widen(self, x: Tensor, setting: Layer, norm: NormValues | Recorder | None = None) -> Tensor:
        """Map (B, I, H, W) to (B, D, H, W): the part of the head that has norms."""
        features = self.features[setting]
        return self.act(self.bn(self.conv(x, features), norm)) if features else x

    def forward(
        self, x: Tensor, setting: Layer, norm: NormValues | Recorder | None = None, dropout: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Map (B, I, H, W) to logits (B, classes) and pooled features (B, D)."""
        pooled = self.widen(x, setting, norm).mean((2, 3))
        return self.fc(F.dropout(pooled, dropout, dropout > 0.0)), pooled

    def channels(self, plans: Plans) -> Iterator[Channels]:
        if hasattr(self, "conv"):
            yield Channels(consumer(self.fc), producers(self.conv, self.bn), sizes(plans, "features"))


class LinearHeadNet(nn.Module):
    """The static twin of ``ElasticLinearHead``."""

    def __init__(self, inputs: int, features: int, num_classes: int, act: str, eps: float = EPS) -> None:
        super().__init__()
        self.features = features
        self.act = activation(act)
        if features:
            self.conv = nn.Conv2d(inputs, features, 1, bias=False)
            self.bn = nn.BatchNorm2d(features, eps)
        self.fc = nn.Linear(features or inputs, num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, I, H, W) to logits (B, classes) and pooled features (B, D)."""
        if self.features:
            x = self.act(self.bn(self.conv(x)))
        pooled = x.mean((2, 3))
        return self.fc(pooled), pooled
