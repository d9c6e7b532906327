"""The classifier of a vision transformer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd.nn.elastic import ElasticLinear
from nas_kd.nn.norm import ElasticLayerNorm, NormValues, Recorder
from nas_kd.nn.part import Channels, ElasticHead, Plans
from nas_kd.space.arch import Cost, Layer, Setting
from nas_kd.space.count import conv_cost, norm_cost
from nas_kd.space.ends import Head


@dataclass(frozen=True)
class NormHead(Head):
    """Layer norm, mean over all positions and a linear classifier, as in a vision transformer."""

    op: ClassVar[str] = "norm_head"
    fields: ClassVar[tuple[str, ...]] = ()

    def options(self) -> tuple[tuple[Setting, ...], ...]:
        return ()

    def resolve(self, setting: Layer, in_width: int, num_classes: int) -> dict[str, Any]:
        return {"op": "norm_head", "in": in_width, "out": num_classes}

    @staticmethod
    def count(layer: Mapping[str, Any], size: int) -> tuple[Cost, int]:
        return norm_cost(layer["in"]) + conv_cost(layer["in"], layer["out"], 1, 1, bias=True), 1

    @staticmethod
    def static(layer: Mapping[str, Any]) -> nn.Module:
        return NormHeadNet(layer["in"], layer["out"])

    def elastic(self, inputs: int, num_classes: int) -> ElasticHead:
        return ElasticNormHead(inputs, num_classes)


class ElasticNormHead(ElasticHead):
    """Layer norm over channels, mean over positions, linear classifier."""

    def __init__(self, inputs: int, num_classes: int) -> None:
        super().__init__()
        self.norm = ElasticLayerNorm(inputs)
        self.fc = ElasticLinear(inputs, num_classes)

    def forward(
        self, x: Tensor, setting: Layer, norm: NormValues | Recorder | None = None, dropout: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Map (B, I, H, W) to logits (B, classes) and pooled features (B, I)."""
        pooled = self.norm(x.flatten(2).transpose(1, 2)).mean(1)
        return self.fc(F.dropout(pooled, dropout, dropout > 0.0)), pooled

    def channels(self, plans: Plans) -> Iterator[Channels]:
        yield from ()  # it has no inner channels


class NormHeadNet(nn.Module):
    """The static twin of ``ElasticNormHead``."""

    def __init__(self, inputs: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(inputs)
        self.fc = nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, I, H, W) to logits (B, classes) and pooled features (B, I)."""
        pooled = self.norm(x.flatten(2).transpose(1, 2)).mean(1)
        return self.fc(pooled), pooled
