"""Descriptions of stages: the choices a stage offers and the layers a choice resolves to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, ClassVar

import numpy as np

from nas_kd.errors import SettingError
from nas_kd.space.arch import Candidate, Layer
from nas_kd.space.count import make_divisible


def _ascending(field: str, values: Sequence[Any]) -> None:
    if not values or list(values) != sorted(set(values)) or min(values) < 1:
        raise SettingError(field, tuple(values), "distinct positive numbers in rising order")


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

    def __post_init__(self) -> None:
        _ascending("widths", self.widths)
        _ascending("depths", self.depths)
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
        _ascending("mids", self.mids)

    def groups(self) -> tuple[tuple[Layer, ...], ...]:
        return (tuple((mid,) for mid in self.mids),)

    def resolve_layer(self, layer: Layer, in_width: int, width: int, stride: int) -> dict[str, Any]:
        return {"op": "basic", "in": in_width, "mid": int(layer[0]), "out": width, "stride": stride}


@dataclass(frozen=True, kw_only=True)
class MBStage(Stage):
    """Inverted residual blocks (MobileNetV2/V3): expand 1x1, depthwise, squeeze-excite, project 1x1.

    Args:
        kernels: depthwise kernel sizes, odd and rising, for each layer on its own.
        expands: expand ratios, rising, for each layer on its own.
        ses: whether squeeze-excite is on, one choice for the whole stage: (False,), (True,) or both.
        act: activation: ``relu``, ``silu`` or ``hardswish``.
    """

    kernels: tuple[int, ...] = (3, 5, 7)
    expands: tuple[float, ...] = (3, 4, 6)
    ses: tuple[bool, ...] = (False, True)
    act: str = "silu"
    fields: ClassVar[tuple[str, ...]] = ("kernel", "expand", "se")

    def __post_init__(self) -> None:
        super().__post_init__()
        _ascending("kernels", self.kernels)
        _ascending("expands", self.expands)
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise SettingError("kernels", self.kernels, "odd sizes")
        if self.ses not in ((False,), (True,), (False, True)):
            raise SettingError("ses", self.ses, "(False,), (True,) or (False, True)")

    def groups(self) -> tuple[tuple[Layer, ...], ...]:
        return tuple(tuple((k, e, se) for k in self.kernels for e in self.expands) for se in self.ses)

    def resolve_layer(self, layer: Layer, in_width: int, width: int, stride: int) -> dict[str, Any]:
        kernel, expand, se = layer
        mid = in_width if expand == 1 else make_divisible(in_width * expand)
        hidden = make_divisible(mid / 4) if se else 0
        resolved = {"op": "mbconv", "in": in_width, "mid": mid, "out": width, "stride": stride}
        return resolved | {"kernel": int(kernel), "se": hidden, "act": self.act}
