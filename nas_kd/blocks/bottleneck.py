"""The bottleneck block of ResNet-D."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd.errors import SettingError
from nas_kd.nn.act import drop_path
from nas_kd.nn.elastic import ElasticConv2d, ElasticGroupConv2d
from nas_kd.nn.norm import ElasticBatchNorm2d, NormValues, Recorder
from nas_kd.nn.part import Channels, ElasticPart, Plans, consumer, producers, sizes
from nas_kd.nn.shortcut import pooled
from nas_kd.space.arch import Cost, Layer
from nas_kd.space.count import conv_cost, make_divisible, norm_cost, strided
from nas_kd.space.part import ascending
from nas_kd.space.stages import Stage


@dataclass(frozen=True, kw_only=True)
class BottleneckStage(Stage):
    """Bottleneck blocks (ResNet-D): 1x1, 3x3, 1x1, and an average-pooled projecting shortcut.

    Args:
        expands: channels of the 3x3 convolution as a fraction of the output channels, ascending, for each layer on its
            own.
        group_width: channels per group of the 3x3 convolution; 0 for one group of all.

    Source: He et al. 2015 and 2018 (ResNet-D); elastic: OFA (Cai et al. 2020). Groups: ResNeXt, RegNet.
    """

    expands: tuple[float, ...] = (0.25,)
    group_width: int = 0
    op: ClassVar[str] = "bottleneck"
    fields: ClassVar[tuple[str, ...]] = ("expand",)
    legend: ClassVar[str] = "1x1, 3x3 of a share of the output's channels (bar: share of the largest choice), 1x1"

    def __post_init__(self) -> None:
        super().__post_init__()
        ascending("expands", self.expands, float)
        mids = {self.mid(width, expand) for width in self.widths for expand in self.expands}
        if self.group_width < 0 or (self.group_width and any(mid % self.group_width for mid in mids)):
            expected = f"a divisor of every middle width; they are {', '.join(map(str, sorted(mids)))}"
            raise SettingError("group_width", self.group_width, expected, "change widths, expands or group_width")

    @staticmethod
    def mid(width: int, expand: float) -> int:
        """Return the channels of the 3x3 convolution."""
        return make_divisible(round(width * expand))

    def groups(self) -> tuple[tuple[Layer, ...], ...]:
        return (tuple((expand,) for expand in self.expands),)

    def resolve_layer(self, layer: Layer, in_width: int, width: int, stride: int) -> dict[str, Any]:
        resolved = {"op": "bottleneck", "in": in_width, "mid": self.mid(width, layer[0]), "out": width}
        return resolved | {"stride": stride, "group_width": self.group_width}

    @staticmethod
    def count(layer: Mapping[str, Any], size: int) -> tuple[Cost, int]:
        mid = layer["mid"]
        out = layer["out"]
        after = strided(size, layer["stride"])
        pixels = after * after
        total = conv_cost(layer["in"], mid, 1, size * size) + norm_cost(mid)
        total = total + conv_cost(layer["group_width"] or mid, mid, 3, pixels) + norm_cost(mid)
        total = total + conv_cost(mid, out, 1, pixels) + norm_cost(out)
        if layer["in"] != out or layer["stride"] != 1:  # the projecting shortcut
            total = total + conv_cost(layer["in"], out, 1, pixels) + norm_cost(out)
        return total, after

    @staticmethod
    def static(layer: Mapping[str, Any]) -> nn.Module:
        return Bottleneck(*(layer[name] for name in ("in", "mid", "out", "stride", "group_width")))

    def elastic(self, inputs: int, stride: int, projects: bool, kernel_transform: bool) -> ElasticPart:
        return ElasticBottleneck(self, inputs, self.widths[-1], stride, projects)

    def label(self, layer: Layer) -> str:
        return f"1x1, 3x3 x{layer[0]:g}, 1x1"

    def share(self, layer: Layer) -> float:
        return layer[0] / self.expands[-1]


class ElasticBottleneck(ElasticPart):
    """1x1, 3x3, 1x1, each with norm, plus an average-pooled shortcut, ReLU."""

    def __init__(self, stage: BottleneckStage, inputs: int, outputs: int, stride: int, projects: bool) -> None:
        super().__init__()
        self.stage = stage
        self.stride = stride
        mid = stage.mid(outputs, stage.expands[-1])
        self.conv1 = ElasticConv2d(inputs, mid)
        self.bn1 = ElasticBatchNorm2d(mid)
        if stage.group_width:
            self.conv2: nn.Module = ElasticGroupConv2d(mid, stage.group_width, 3, stride)
        else:
            self.conv2 = ElasticConv2d(mid, mid, 3, stride)
        self.bn2 = ElasticBatchNorm2d(mid)
        self.conv3 = ElasticConv2d(mid, outputs)
        self.bn3 = ElasticBatchNorm2d(outputs)
        nn.init.zeros_(self.bn3.weight)  # every block has a shortcut and starts as the shortcut alone
        if projects:
            self.shortcut = ElasticConv2d(inputs, outputs)
            self.shortcut_bn = ElasticBatchNorm2d(outputs)

    def forward(
        self, x: Tensor, layer: Layer, width: int, norm: NormValues | Recorder | None = None, drop: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Map (B, I, H, W) to (B, width, H', W') after and before the last ReLU; ``layer`` is (expand,)."""
        mid = self.stage.mid(width, layer[0])
        out = F.relu(self.bn1(self.conv1(x, mid), norm))
        out = F.relu(self.bn2(self.conv2(out, mid), norm))
        out = drop_path(self.bn3(self.conv3(out, width), norm), drop)
        if self.stride != 1 or x.shape[1] != width:
            x = self.shortcut_bn(self.shortcut(pooled(x, self.stride), width), norm)
        out = out + x
        return F.relu(out), out

    def channels(self, plans: Plans) -> Iterator[Channels]:
        used = sizes(plans, "mid")
        unit = self.stage.group_width
        if unit:  # the channels of a group stay together, on both sides of the grouped convolution
            made = producers(self.conv1, self.bn1, self.conv2, self.bn2, unit=unit)
            yield Channels(consumer(self.conv3, unit), made, tuple(n // unit for n in used))
        else:
            yield Channels(consumer(self.conv3), producers(self.conv2, self.bn2), used)
            yield Channels(consumer(self.conv2), producers(self.conv1, self.bn1), used)


class Bottleneck(nn.Module):
    """The static twin of ``ElasticBottleneck``.

    Args:
        mid: channels of the 3x3 convolution.
        group_width: channels per group of the 3x3 convolution, 0 for one group of all.
    """

    def __init__(self, inputs: int, mid: int, outputs: int, stride: int, group_width: int) -> None:
        super().__init__()
        groups = mid // group_width if group_width else 1
        self.conv1 = nn.Conv2d(inputs, mid, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(mid)
        self.conv2 = nn.Conv2d(mid, mid, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(mid)
        self.conv3 = nn.Conv2d(mid, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        nn.init.zeros_(self.bn3.weight)
        self.stride = stride
        self.projects = stride != 1 or inputs != outputs
        if self.projects:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False)
            self.shortcut_bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor, drop: float = 0.0) -> tuple[Tensor, Tensor]:
        """Map (B, I, H, W) to (B, O, H', W') after and before the last ReLU."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = drop_path(self.bn3(self.conv3(out)), drop)
        out = out + (self.shortcut_bn(self.shortcut(pooled(x, self.stride))) if self.projects else x)
        return F.relu(out), out
