"""The stem of ResNet-D, with OFA's elastic middle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd.errors import SettingError
from nas_kd.nn.elastic import ElasticConv2d
from nas_kd.nn.norm import ElasticBatchNorm2d, NormValues, Recorder
from nas_kd.nn.part import Channels, ElasticPart, Plans, consumer, producers, sizes
from nas_kd.space.arch import Cost, Layer, Setting
from nas_kd.space.count import conv_cost, make_divisible, norm_cost, strided
from nas_kd.space.ends import Stem, several
from nas_kd.space.part import ascending


@dataclass(frozen=True)
class ResNetDStem(Stem):
    """Three 3x3 convolutions, the middle one residual and optional, and a 3x3 max pool: stride 4.

    Args:
        mid: channels of the first two convolutions before rounding to a multiple of 8, or several to choose from.
        width: output channels, or several to choose from.
        residual: whether the middle convolution is present: (False,), (True,) or both.

    Source: ResNet-D (He et al. 2018), with OFA's elastic input stem (Cai et al. 2020, OFAResNets).
    """

    mid: int | tuple[int, ...] = 32
    width: int | tuple[int, ...] = 64
    residual: tuple[bool, ...] = (False, True)
    op: ClassVar[str] = "resnet_stem"
    fields: ClassVar[tuple[str, ...]] = ("residual", "mid", "width")

    def __post_init__(self) -> None:
        ascending("stem.mid", several(self.mid))
        ascending("stem.width", several(self.width))
        if self.residual not in ((False,), (True,), (False, True)):
            raise SettingError("stem.residual", self.residual, "(False,), (True,) or (False, True)")

    @property
    def stride(self) -> int:
        return 4

    def options(self) -> tuple[tuple[Setting, ...], ...]:
        return self.residual, several(self.mid), several(self.width)

    def resolve(self, setting: Layer, in_chans: int) -> dict[str, Any]:
        named = self.named(setting)
        mid = make_divisible(int(named["mid"]))
        out = int(named["width"])
        return {"op": "resnet_stem", "in": in_chans, "mid": mid, "out": out, "residual": bool(named["residual"])}

    @staticmethod
    def count(layer: Mapping[str, Any], size: int) -> tuple[Cost, int]:
        mid = layer["mid"]
        out = strided(size, 2)
        total = conv_cost(layer["in"], mid, 3, out * out) + norm_cost(mid)
        if layer["residual"]:
            total = total + conv_cost(mid, mid, 3, out * out) + norm_cost(mid)
        return total + conv_cost(mid, layer["out"], 3, out * out) + norm_cost(layer["out"]), strided(out, 2)

    @staticmethod
    def static(layer: Mapping[str, Any]) -> nn.Module:
        return ResNetDStemNet(layer["in"], layer["mid"], layer["out"], layer["residual"])

    def elastic(self, in_chans: int) -> ElasticPart:
        return ElasticResNetDStem(self, in_chans)


class ElasticResNetDStem(ElasticPart):
    """Three 3x3 convolutions, the middle one residual and optional, and a max pool."""

    def __init__(self, stem: ResNetDStem, in_chans: int) -> None:
        super().__init__()
        self.stem = stem
        self.in_chans = in_chans
        largest = stem.resolve(stem.largest(), in_chans)
        mid = largest["mid"]
        width = largest["out"]
        self.conv1 = ElasticConv2d(in_chans, mid, 3, 2)
        self.bn1 = ElasticBatchNorm2d(mid)
        if largest["residual"]:
            self.conv2 = ElasticConv2d(mid, mid, 3)
            self.bn2 = ElasticBatchNorm2d(mid)
        self.conv3 = ElasticConv2d(mid, width, 3)
        self.bn3 = ElasticBatchNorm2d(width)

    def forward(self, x: Tensor, setting: Layer, norm: NormValues | Recorder | None = None) -> Tensor:
        """Map (B, in_chans, H, W) to (B, width, H / 4, W / 4)."""
        plan = self.stem.resolve(setting, self.in_chans)
        x = F.relu(self.bn1(self.conv1(x, plan["mid"]), norm))
        if plan["residual"]:
            x = x + F.relu(self.bn2(self.conv2(x, plan["mid"]), norm))
        x = F.relu(self.bn3(self.conv3(x, plan["out"]), norm))
        return F.max_pool2d(x, 3, 2, 1)

    def channels(self, plans: Plans) -> Iterator[Channels]:
        made = producers(self.conv1, self.bn1)
        if hasattr(self, "conv2"):  # residual: its outputs are its inputs
            made = (*made, consumer(self.conv2), *producers(self.conv2, self.bn2))
        yield Channels(consumer(self.conv3), made, sizes(plans, "mid"))


class ResNetDStemNet(nn.Module):
    """The static twin of ``ElasticResNetDStem``."""

    def __init__(self, in_chans: int, mid: int, width: int, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.conv1 = nn.Conv2d(in_chans, mid, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(mid)
        if residual:
            self.conv2 = nn.Conv2d(mid, mid, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(mid)
        self.conv3 = nn.Conv2d(mid, width, 3, 1, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_chans, H, W) to (B, width, H / 4, W / 4)."""
        x = F.relu(self.bn1(self.conv1(x)))
        if self.residual:
            x = x + F.relu(self.bn2(self.conv2(x)))
        x = F.relu(self.bn3(self.conv3(x)))
        return F.max_pool2d(x, 3, 2, 1)
