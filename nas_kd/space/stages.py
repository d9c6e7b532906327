"""Descriptions of stages: the choices a stage offers and the layers a choice resolves to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Any, ClassVar

import numpy as np

from nas_kd.errors import SettingError
from nas_kd.space.arch import Candidate, Layer
from nas_kd.space.count import make_divisible

# A field added to a description after spaces were published: at its default it is left out of the hash.
LATER = {"later": True}


def ascending(name: str, values: Any, kind: type = int) -> None:
    """Raise SettingError unless ``values`` is a tuple of distinct, positive and rising numbers.

    Args:
        name: of the setting.
        values: what was given.
        kind: ``int`` for whole numbers only, ``float`` for any.
    """
    given = isinstance(values, tuple) and all(isinstance(v, (int, kind)) and v is not True for v in values)
    if not given or not values or list(values) != sorted(set(values)) or min(values) <= 0:
        what = "whole numbers" if kind is int else "numbers"
        raise SettingError(name, values, f"a tuple of distinct positive {what} in rising order")


@dataclass(frozen=True, kw_only=True)
class Stage(ABC):
    """A run of layers at one resolution, offering widths, depths and settings of each layer.

    Args:
        widths: output channels to choose from, rising.
        depths: numbers of layers to choose from, rising.
        stride: stride of the first layer.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    stride: int = 1

    fields: ClassVar[tuple[str, ...]]  # names of a layer's settings
    keeps_width: ClassVar[bool] = False  # whether a candidate's width must be the width of the stage's input

    def __post_init__(self) -> None:
        ascending("widths", self.widths)
        ascending("depths", self.depths)
        if self.stride not in (1, 2):
            raise SettingError("stride", self.stride, "1 or 2")

    @abstractmethod
    def groups(self) -> tuple[tuple[Layer, ...], ...]:
        """Return the layer choices in groups; all layers of a stage come from one group."""

    @abstractmethod
    def resolve_layer(self, layer: Layer, in_width: int, width: int, stride: int) -> dict[str, Any]:
        """Return one layer as a plain dictionary that ``count_layer`` and ``StaticNet`` read."""

    def resolve(self, candidate: Candidate, in_width: int) -> list[dict[str, Any]]:
        """Return the layers a candidate consists of.

        Args:
            candidate: one choice of this stage.
            in_width: channels of the stage's input.

        Returns:
            One dictionary a layer.
        """
        resolved = []
        for index, layer in enumerate(candidate.layers):
            inputs = in_width if index == 0 else candidate.width
            resolved.append(self.resolve_layer(layer, inputs, candidate.width, self.stride if index == 0 else 1))
        return resolved

    @cached_property
    def _candidates(self) -> tuple[Candidate, ...]:
        return tuple(
            Candidate(width, layers)
            for width in self.widths
            for group in self.groups()
            for depth in self.depths
            for layers in product(group, repeat=depth)
        )

    def candidates(self) -> tuple[Candidate, ...]:
        """Return every candidate in canonical order: width, group, depth, layers."""
        return self._candidates

    @property
    def size(self) -> int:
        """Number of candidates, in closed form."""
        layers = sum(len(group) ** depth for group in self.groups() for depth in self.depths)
        return len(self.widths) * layers

    def contains(self, candidate: Candidate) -> bool:
        """Say whether a candidate is a choice of this stage."""
        fits = candidate.width in self.widths and candidate.depth in self.depths
        return fits and any(all(layer in group for layer in candidate.layers) for group in self.groups())

    def largest(self) -> Candidate:
        """Return the candidate with the largest of everything."""
        return Candidate(self.widths[-1], (self.groups()[-1][-1],) * self.depths[-1])

    def smallest(self) -> Candidate:
        """Return the candidate with the smallest of everything."""
        return Candidate(self.widths[0], (self.groups()[0][0],) * self.depths[0])

    def sample(self, rng: np.random.Generator) -> Candidate:
        """Draw width, depth and each layer uniformly and independently.

        Args:
            rng: the generator to draw from.

        Returns:
            A candidate. Every value of every dimension is equally likely, which is not the same as every
            candidate being equally likely: most candidates are deep.
        """
        groups = self.groups()
        group = groups[int(rng.integers(len(groups)))]
        width = self.widths[int(rng.integers(len(self.widths)))]
        depth = self.depths[int(rng.integers(len(self.depths)))]
        return Candidate(width, tuple(group[int(rng.integers(len(group)))] for _ in range(depth)))


@dataclass(frozen=True, kw_only=True)
class BasicStage(Stage):
    """Basic residual blocks (He et al. 2015): 3x3, 3x3, and a projecting shortcut where shapes change.

    Args:
        mids: channels between the two convolutions to choose from, rising, for each layer on its own.
    """

    mids: tuple[int, ...]
    fields: ClassVar[tuple[str, ...]] = ("mid",)

    def __post_init__(self) -> None:
        super().__post_init__()
        ascending("mids", self.mids)

    def groups(self) -> tuple[tuple[Layer, ...], ...]:
        return (tuple((mid,) for mid in self.mids),)

    def resolve_layer(self, layer: Layer, in_width: int, width: int, stride: int) -> dict[str, Any]:
        return {"op": "basic", "in": in_width, "mid": int(layer[0]), "out": width, "stride": stride}


@dataclass(frozen=True, kw_only=True)
class BottleneckStage(Stage):
    """Bottleneck blocks (ResNet-D): 1x1, 3x3, 1x1, and an average-pooled projecting shortcut.

    Args:
        expands: channels of the 3x3 convolution as a share of the output's, rising, for each layer on its own.
        group_width: channels a group of the 3x3 convolution; 0 for one group of all.

    Source: He et al. 2015 and 2018 (ResNet-D); elastic: OFA (Cai et al. 2020). Groups: ResNeXt, RegNet.
    """

    expands: tuple[float, ...] = (0.25,)
    group_width: int = 0
    fields: ClassVar[tuple[str, ...]] = ("expand",)

    def __post_init__(self) -> None:
        super().__post_init__()
        ascending("expands", self.expands, float)
        mids = {self.mid(width, expand) for width in self.widths for expand in self.expands}
        if self.group_width < 0 or (self.group_width and any(mid % self.group_width for mid in mids)):
            legal = f"a divisor of every middle width; they are {', '.join(map(str, sorted(mids)))}"
            raise SettingError("group_width", self.group_width, legal, "change widths, expands or group_width")

    @staticmethod
    def mid(width: int, expand: float) -> int:
        """Return the channels of the 3x3 convolution."""
        return make_divisible(round(width * expand))

    def groups(self) -> tuple[tuple[Layer, ...], ...]:
        return (tuple((expand,) for expand in self.expands),)

    def resolve_layer(self, layer: Layer, in_width: int, width: int, stride: int) -> dict[str, Any]:
        resolved = {"op": "bottleneck", "in": in_width, "mid": self.mid(width, layer[0]), "out": width}
        return resolved | {"stride": stride, "group_width": self.group_width}


@dataclass(frozen=True, kw_only=True)
class MBStage(Stage):
    """Inverted residual blocks (MobileNetV2/V3): expand 1x1, depthwise, squeeze-excite, project 1x1.

    Args:
        kernels: depthwise kernel sizes, odd and rising, for each layer on its own.
        expands: expand ratios, rising, for each layer on its own.
        ses: whether squeeze-excite is on, one choice for the whole stage: (False,), (True,) or both.
        act: activation: ``relu``, ``relu6``, ``silu`` or ``hardswish``.
        uniform: whether all layers of a stage share one setting, as in AttentiveNAS.
        pooled: whether blocks that change the shape have a shortcut too: average pooling where the stride
            is 2, then a 1x1 convolution without norm where the width changes, as in AttentiveNAS.
    """

    kernels: tuple[int, ...] = (3, 5, 7)
    expands: tuple[float, ...] = (3, 4, 6)
    ses: tuple[bool, ...] = (False, True)
    act: str = "silu"
    uniform: bool = field(default=False, metadata=LATER)
    pooled: bool = field(default=False, metadata=LATER)
    fields: ClassVar[tuple[str, ...]] = ("kernel", "expand", "se")

    def __post_init__(self) -> None:
        super().__post_init__()
        ascending("kernels", self.kernels)
        ascending("expands", self.expands, float)
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise SettingError("kernels", self.kernels, "odd sizes")
        if self.ses not in ((False,), (True,), (False, True)):
            raise SettingError("ses", self.ses, "(False,), (True,) or (False, True)")

    def groups(self) -> tuple[tuple[Layer, ...], ...]:
        together = tuple(tuple((k, e, se) for k in self.kernels for e in self.expands) for se in self.ses)
        return tuple((layer,) for group in together for layer in group) if self.uniform else together

    @staticmethod
    def channels(in_width: int, expand: float, se: bool) -> tuple[int, int]:
        """Return the channels of the depthwise convolution, and the hidden ones of squeeze-excite or 0."""
        mid = in_width if expand == 1 else make_divisible(round(in_width * expand))
        return mid, make_divisible(mid / 4) if se else 0

    def resolve_layer(self, layer: Layer, in_width: int, width: int, stride: int) -> dict[str, Any]:
        kernel, expand, se = layer
        mid, hidden = self.channels(in_width, expand, bool(se))
        resolved = {"op": "mbconv", "in": in_width, "mid": mid, "out": width, "stride": stride}
        return resolved | {"kernel": int(kernel), "se": hidden, "act": self.act, "pooled": self.pooled}


@dataclass(frozen=True, kw_only=True)
class ViTStage(Stage):
    """Pre-norm transformer layers: self-attention and MLP, both residual, at one width throughout.

    Args:
        heads: numbers of attention heads to choose from, rising, for each layer on its own.
        mlp_ratios: hidden channels of the MLP as a multiple of the width, rising, for each layer on its own.
        head_dim: channels of a head.

    Source: ViT (Dosovitskiy et al. 2020); elastic: AutoFormer (Chen et al. 2021), section 3.
    """

    heads: tuple[int, ...]
    mlp_ratios: tuple[float, ...] = (4,)
    head_dim: int = 64
    fields: ClassVar[tuple[str, ...]] = ("heads", "mlp_ratio")
    keeps_width: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        ascending("heads", self.heads)
        ascending("mlp_ratios", self.mlp_ratios, float)
        if self.stride != 1:
            raise SettingError("stride", self.stride, "1: the number of tokens stays the same")
        if self.head_dim < 1:
            raise SettingError("head_dim", self.head_dim, "an integer of at least 1")
        if self.widths[0] * self.mlp_ratios[0] < 1:
            raise SettingError("mlp_ratios", self.mlp_ratios, f"at least one channel at width {self.widths[0]}")

    def groups(self) -> tuple[tuple[Layer, ...], ...]:
        return (tuple((heads, ratio) for heads in self.heads for ratio in self.mlp_ratios),)

    def resolve_layer(self, layer: Layer, in_width: int, width: int, stride: int) -> dict[str, Any]:
        named = {"in": in_width, "out": width, "heads": int(layer[0]), "head_dim": self.head_dim}
        return {"op": "vit"} | named | {"hidden": int(width * layer[1]), "stride": stride}
