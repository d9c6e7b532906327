"""The stem of small images: one convolution."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from nas_kd.errors import SettingError
from nas_kd.nn.act import activation
from nas_kd.nn.elastic import ElasticConv2d
from nas_kd.nn.norm import ElasticBatchNorm2d, NormValues, Recorder
from nas_kd.nn.part import Channels, ElasticPart, Plans
from nas_kd.space.arch import Cost, Layer, Setting
from nas_kd.space.count import conv_cost, norm_cost, strided
from nas_kd.space.ends import Stem, several
from nas_kd.space.part import EPS, IF_CHANGED, ascending


@dataclass(frozen=True)
class ConvStem(Stem):
    """3x3 convolution, norm and activation.

    Args:
        width: output channels, or several to choose from, ascending.
        stride: 1 or 2.
        act: ``relu``, ``relu6``, ``silu`` or ``hardswish``.
        eps: what the norm adds to the variance.
    """

    width: int | tuple[int, ...] = 16
    stride: int = 1
    act: str = "relu"
    eps: float = field(default=EPS, metadata=IF_CHANGED)
    op: ClassVar[str] = "stem"
    fields: ClassVar[tuple[str, ...]] = ("width",)
    typed: ClassVar[bool] = False  # was once the only stem, hashed without its type

    def __post_init__(self) -> None:
        ascending("stem.width", several(self.width))
        if self.stride not in (1, 2):
            raise SettingError("stem.stride", self.stride, "1 or 2")

    def options(self) -> tuple[tuple[Setting, ...], ...]:
        return (several(self.width),)

    def resolve(self, setting: Layer, in_chans: int) -> dict[str, Any]:
        out = self.width_of(setting)
        eps = {} if self.eps == EPS else {"eps": self.eps}
        return {"op": "stem", "in": in_chans, "out": out, "stride": self.stride, "act": self.act} | eps

    @staticmethod
    def count(layer: Mapping[str, Any], size: int) -> tuple[Cost, int]:
        out = strided(size, layer["stride"])
        return conv_cost(layer["in"], layer["out"], 3, out * out) + norm_cost(layer["out"]), out

    @staticmethod
    def static(layer: Mapping[str, Any]) -> nn.Module:
        return ConvStemNet(layer["in"], layer["out"], layer["stride"], layer["act"], layer.get("eps", EPS))

    def elastic(self, in_chans: int) -> ElasticPart:
        return ElasticConvStem(self, in_chans)


class ElasticConvStem(ElasticPart):
    """3x3 convolution, norm, activation."""

    def __init__(self, stem: ConvStem, in_chans: int) -> None:
        super().__init__()
        self.act = activation(stem.act)
        width = stem.widths[-1]
        self.widths = {setting: stem.width_of(setting) for setting in stem.choices()}
        self.conv = ElasticConv2d(in_chans, width, 3, stem.stride)
        self.bn = ElasticBatchNorm2d(width, stem.eps)

    def forward(self, x: Tensor, setting: Layer, norm: NormValues | Recorder | None = None) -> Tensor:
        """Map (B, in_chans, H, W) to (B, width, H', W')."""
        return self.act(self.bn(self.conv(x, self.widths[setting]), norm))

    def channels(self, plans: Plans) -> Iterator[Channels]:
        yield from ()  # its outputs are the first stage's inputs


class ConvStemNet(nn.Module):
    """The static twin of ``ElasticConvStem``."""

    def __init__(self, in_chans: int, width: int, stride: int, act: str, eps: float = EPS) -> None:
        super().__init__()
        self.act = activation(act)
        self.conv = nn.Conv2d(in_chans, width, 3, stride, 1, bias=False)
        self.bn = nn.BatchNorm2d(width, eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_chans, H, W) to (B, width, H', W')."""
        return self.act(self.bn(self.conv(x)))
