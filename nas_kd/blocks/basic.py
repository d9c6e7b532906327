"""The basic residual block (He et al. 2015)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd.nn.act import drop_path
from nas_kd.nn.elastic import ElasticConv2d
from nas_kd.nn.norm import ElasticBatchNorm2d, NormValues, Recorder
from nas_kd.nn.part import Channels, ElasticPart, Plans, consumer, producers, sizes
from nas_kd.nn.shortcut import subsample
from nas_kd.space.arch import Cost, Layer
from nas_kd.space.count import conv_cost, norm_cost, strided
from nas_kd.space.part import ascending
from nas_kd.space.stages import Stage


@dataclass(frozen=True, kw_only=True)
class BasicStage(Stage):
    """Basic residual blocks (He et al. 2015): 3x3, 3x3, and a projecting shortcut where shapes change.

    Args:
        mids: channels between the two convolutions to choose from, ascending, for each layer on its own.
    """

    mids: tuple[int, ...]
    op: ClassVar[str] = "basic"
    fields: ClassVar[tuple[str, ...]] = ("mid",)
    legend: ClassVar[str] = "3x3 convolution, inner channels (bar: share of the largest choice), 3x3 convolution"

    def __post_init__(self) -> None:
        super().__post_init__()
        ascending("mids", self.mids)

    def groups(self) -> tuple[tuple[Layer, ...], ...]:
        return (tuple((mid,) for mid in self.mids),)

    def resolve_layer(self, layer: Layer, in_width: int, width: int, stride: int) -> dict[str, Any]:
        return {"op": "basic", "in": in_width, "mid": int(layer[0]), "out": width, "stride": stride}

    @staticmethod
    def count(layer: Mapping[str, Any], size: int) -> tuple[Cost, int]:
        out = strided(size, layer["stride"])
        total = conv_cost(layer["in"], layer["mid"], 3, out * out) + norm_cost(layer["mid"])
        total = total + conv_cost(layer["mid"], layer["out"], 3, out * out) + norm_cost(layer["out"])
        if layer["in"] != layer["out"] or layer["stride"] != 1:  # the projecting shortcut
            total = total + conv_cost(layer["in"], layer["out"], 1, out * out) + norm_cost(layer["out"])
        return total, out

    @staticmethod
    def static(layer: Mapping[str, Any]) -> nn.Module:
        return BasicBlock(layer["in"], layer["mid"], layer["out"], layer["stride"])

    def elastic(self, inputs: int, stride: int, projects: bool, kernel_transform: bool) -> ElasticPart:
        return ElasticBasicBlock(inputs, self.mids[-1], self.widths[-1], stride, projects)

    def label(self, layer: Layer) -> str:
        return f"3x3, {layer[0]}, 3x3"

    def share(self, layer: Layer) -> float:
        return layer[0] / self.mids[-1]


class ElasticBasicBlock(ElasticPart):
    """3x3, norm, ReLU, 3x3, norm, plus shortcut, ReLU, with elastic input, middle and output widths."""

    def __init__(self, inputs: int, mid: int, outputs: int, stride: int, projects: bool) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = ElasticConv2d(inputs, mid, 3, stride)
        self.bn1 = ElasticBatchNorm2d(mid)
        self.conv2 = ElasticConv2d(mid, outputs, 3)
        self.bn2 = ElasticBatchNorm2d(outputs)
        if projects:
            self.shortcut = ElasticConv2d(inputs, outputs)
            self.shortcut_bn = ElasticBatchNorm2d(outputs)
        else:
            nn.init.zeros_(self.bn2.weight)  # the block starts as the identity

    def forward(
        self, x: Tensor, layer: Layer, width: int, norm: NormValues | Recorder | None = None, drop: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Map (B, I, H, W) to (B, width, H', W') after and before the last ReLU; ``layer`` is (mid,)."""
        out = F.relu(self.bn1(self.conv1(x, int(layer[0])), norm))
        out = drop_path(self.bn2(self.conv2(out, width), norm), drop)
        if self.stride != 1 or x.shape[1] != width:
            x = self.shortcut_bn(self.shortcut(subsample(x, self.stride), width), norm)
        out = out + x
        return F.relu(out), out

    def channels(self, plans: Plans) -> Iterator[Channels]:
        yield Channels(consumer(self.conv2), producers(self.conv1, self.bn1), sizes(plans, "mid"))


class BasicBlock(nn.Module):
    """The static twin of ``ElasticBasicBlock``."""

    def __init__(self, inputs: int, mid: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, mid, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(mid)
        self.conv2 = nn.Conv2d(mid, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
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
