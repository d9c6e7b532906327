"""Descriptions of what comes before the first stage and after the last one, fixed or elastic."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, ClassVar

from nas_kd.errors import SettingError
from nas_kd.space.arch import Layer, Setting
from nas_kd.space.count import make_divisible
from nas_kd.space.stages import ascending


def _tuple(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else value


@dataclass(frozen=True)
class End(ABC):
    """A stem or a head: its settings, of which those with several choices are part of an arch."""

    fields: ClassVar[tuple[str, ...]]  # names of the settings

    @abstractmethod
    def options(self) -> tuple[tuple[Setting, ...], ...]:
        """Return the choices of each field, rising."""

    @cached_property
    def _choices(self) -> tuple[Layer, ...]:
        return tuple(product(*(option for option in self.options() if len(option) > 1)))

    def choices(self) -> tuple[Layer, ...]:
        """Return every combination of the fields that offer more than one value; ``((),)`` when none does."""
        return self._choices

    def named(self, setting: Layer) -> dict[str, Setting]:
        """Return all fields by name.

        Args:
            setting: one of ``choices()``.
        """
        chosen = iter(setting)
        options = zip(self.fields, self.options(), strict=True)
        return {name: next(chosen) if len(option) > 1 else option[0] for name, option in options}

    def largest(self) -> Layer:
        """Return the setting with the largest of everything."""
        return self._choices[-1]

    def smallest(self) -> Layer:
        """Return the setting with the smallest of everything."""
        return self._choices[0]


@dataclass(frozen=True)
class Stem(End):
    """What comes before the first stage; one of its fields is ``width``, its output channels."""

    @property
    @abstractmethod
    def stride(self) -> int:
        """By how much it shrinks height and width."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Output channels to choose from, rising."""
        return tuple(int(v) for v in self.options()[self.fields.index("width")])

    def width_of(self, setting: Layer) -> int:
        """Return the output channels of a setting."""
        return int(self.named(setting)["width"])

    @abstractmethod
    def resolve(self, setting: Layer, in_chans: int) -> dict[str, Any]:
        """Return the stem as a plain dictionary that ``count_layer`` and ``StaticNet`` read."""


@dataclass(frozen=True)
class Head(End):
    """What comes after the last stage."""

    @abstractmethod
    def resolve(self, setting: Layer, in_width: int, num_classes: int) -> dict[str, Any]:
        """Return the head as a plain dictionary that ``count_layer`` and ``StaticNet`` read."""


@dataclass(frozen=True)
class ConvStem(Stem):
    """3x3 convolution, norm and activation.

    Args:
        width: output channels, or several to choose from, rising.
        stride: 1 or 2.
        act: ``relu``, ``relu6``, ``silu`` or ``hardswish``.
    """

    width: int | tuple[int, ...] = 16
    stride: int = 1
    act: str = "relu"
    fields: ClassVar[tuple[str, ...]] = ("width",)

    def __post_init__(self) -> None:
        ascending("stem.width", _tuple(self.width))
        if self.stride not in (1, 2):
            raise SettingError("stem.stride", self.stride, "1 or 2")

    def options(self) -> tuple[tuple[Setting, ...], ...]:
        return (_tuple(self.width),)

    def resolve(self, setting: Layer, in_chans: int) -> dict[str, Any]:
        out = self.width_of(setting)
        return {"op": "stem", "in": in_chans, "out": out, "stride": self.stride, "act": self.act}


@dataclass(frozen=True)
class ResNetDStem(Stem):
    """Three 3x3 convolutions, the middle one residual and left out at choice, and a 3x3 max pool: stride 4.

    Args:
        mid: channels of the first two convolutions before rounding to a multiple of 8, or several to choose from.
        width: output channels, or several to choose from.
        residual: whether the middle convolution is there: (False,), (True,) or both.

    Source: ResNet-D (He et al. 2018), with OFA's elastic input stem (Cai et al. 2020, OFAResNets).
    """

    mid: int | tuple[int, ...] = 32
    width: int | tuple[int, ...] = 64
    residual: tuple[bool, ...] = (False, True)
    fields: ClassVar[tuple[str, ...]] = ("residual", "mid", "width")

    def __post_init__(self) -> None:
        ascending("stem.mid", _tuple(self.mid))
        ascending("stem.width", _tuple(self.width))
        if self.residual not in ((False,), (True,), (False, True)):
            raise SettingError("stem.residual", self.residual, "(False,), (True,) or (False, True)")

    @property
    def stride(self) -> int:
        return 4

    def options(self) -> tuple[tuple[Setting, ...], ...]:
        return self.residual, _tuple(self.mid), _tuple(self.width)

    def resolve(self, setting: Layer, in_chans: int) -> dict[str, Any]:
        named = self.named(setting)
        mid = make_divisible(int(named["mid"]))
        out = int(named["width"])
        return {"op": "resnet_stem", "in": in_chans, "mid": mid, "out": out, "residual": bool(named["residual"])}


@dataclass(frozen=True)
class PatchStem(Stem):
    """Non-overlapping patches to tokens, with a learned position embedding that is resized to other inputs.

    Args:
        width: channels of a token, or several to choose from.
        patch: height and width of a patch in pixels.
        grid: patches a side that the position embedding is made for.

    Source: ViT (Dosovitskiy et al. 2020), section 3.1.
    """

    width: int | tuple[int, ...]
    patch: int = 16
    grid: int = 14
    fields: ClassVar[tuple[str, ...]] = ("width",)

    def __post_init__(self) -> None:
        ascending("stem.width", _tuple(self.width))
        for name in ("patch", "grid"):
            if getattr(self, name) < 1:
                raise SettingError(f"stem.{name}", getattr(self, name), "an integer of at least 1")

    @property
    def stride(self) -> int:
        return self.patch

    def options(self) -> tuple[tuple[Setting, ...], ...]:
        return (_tuple(self.width),)

    def resolve(self, setting: Layer, in_chans: int) -> dict[str, Any]:
        out = self.width_of(setting)
        return {"op": "patch", "in": in_chans, "out": out, "patch": self.patch, "grid": self.grid}


@dataclass(frozen=True)
class LinearHead(Head):
    """Global average pooling and a linear classifier, optionally behind a 1x1 convolution with a norm.

    Args:
        features: channels of the 1x1 convolution, several to choose from, or 0 for none.
        act: activation behind that convolution.
    """

    features: int | tuple[int, ...] = 0
    act: str = "relu"
    fields: ClassVar[tuple[str, ...]] = ("features",)

    def __post_init__(self) -> None:
        if self.features != 0:
            ascending("head.features", _tuple(self.features))

    def options(self) -> tuple[tuple[Setting, ...], ...]:
        return (_tuple(self.features),)

    def resolve(self, setting: Layer, in_width: int, num_classes: int) -> dict[str, Any]:
        features = int(self.named(setting)["features"])
        return {"op": "head", "in": in_width, "features": features, "out": num_classes, "act": self.act}


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
    fields: ClassVar[tuple[str, ...]] = ("features",)

    def __post_init__(self) -> None:
        ascending("head.features", _tuple(self.features))
        for name, least in (("expand", 1), ("channels", 0)):
            if getattr(self, name) < least:
                raise SettingError(f"head.{name}", getattr(self, name), f"an integer of at least {least}")

    def options(self) -> tuple[tuple[Setting, ...], ...]:
        return (_tuple(self.features),)

    def resolve(self, setting: Layer, in_width: int, num_classes: int) -> dict[str, Any]:
        mid = self.channels or in_width * self.expand
        features = int(self.named(setting)["features"])
        named = {"in": in_width, "mid": mid, "features": features, "out": num_classes}
        return {"op": "mobile_head"} | named | {"act": self.act}


@dataclass(frozen=True)
class NormHead(Head):
    """Layer norm, mean over all positions and a linear classifier, as behind a vision transformer."""

    fields: ClassVar[tuple[str, ...]] = ()

    def options(self) -> tuple[tuple[Setting, ...], ...]:
        return ()

    def resolve(self, setting: Layer, in_width: int, num_classes: int) -> dict[str, Any]:
        return {"op": "norm_head", "in": in_width, "out": num_classes}
