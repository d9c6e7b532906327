"""A stage: the choices of a run of layers, and the layers that a choice resolves to."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nas_kd.errors import SettingError
from nas_kd.space.arch import Candidate, Layer
from nas_kd.space.part import Part, ascending

if TYPE_CHECKING:
    from nas_kd.nn.part import ElasticPart


@dataclass(frozen=True, kw_only=True)
class Stage(Part):
    """A run of layers at one resolution, offering widths, depths and settings of each layer.

    Args:
        widths: output channels to choose from, ascending.
        depths: numbers of layers to choose from, ascending.
        stride: stride of the first layer.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    stride: int = 1

    keeps_width: ClassVar[bool] = False  # whether a candidate's width must be the width of the stage's input
    legend: ClassVar[str] = "one box a layer"  # the meaning of the labels in a figure's boxes

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
        """Return one layer as a plain dictionary that ``count`` and ``static`` read."""

    @abstractmethod
    def elastic(self, inputs: int, stride: int, projects: bool, kernel_transform: bool) -> ElasticPart:
        """Build the shared weights of one layer, for all its choices.

        Args:
            inputs: largest number of input channels.
            projects: whether any choice changes the shape, so that the shortcut is not always the identity.
            kernel_transform: whether small depthwise kernels are learned transformations of the largest (OFA).

        Returns:
            A module ``(x, layer, width, norm, drop) -> (B, width, H', W')`` after and before the last activation.
        """

    def label(self, layer: Layer) -> str:
        """Return the label of a layer in a figure."""
        return ", ".join(f"{value}" for value in layer)

    def share(self, layer: Layer) -> float:
        """Return a layer's main setting as a share of the largest choice, 0 to 1: the bar in its box."""
        return 0.0

    def drawing(self) -> dict[str, Any]:
        layers = dict.fromkeys(layer for group in self.groups() for layer in group)
        words = [{"layer": list(layer), "label": self.label(layer), "share": self.share(layer)} for layer in layers]
        return {"legend": self.legend, "layers": words}

    def resolve(self, candidate: Candidate, in_width: int) -> list[dict[str, Any]]:
        """Return the layers of a candidate, one dictionary per layer."""
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
        """Return whether a candidate is a choice of this stage."""
        fits = candidate.width in self.widths and candidate.depth in self.depths
        return fits and any(all(layer in group for layer in candidate.layers) for group in self.groups())

    def largest(self) -> Candidate:
        """Return the candidate with the largest value of every choice."""
        return Candidate(self.widths[-1], (self.groups()[-1][-1],) * self.depths[-1])

    def smallest(self) -> Candidate:
        """Return the candidate with the smallest value of every choice."""
        return Candidate(self.widths[0], (self.groups()[0][0],) * self.depths[0])

    def sample(self, rng: np.random.Generator) -> Candidate:
        """Draw width, depth and each layer uniformly and independently; candidates are not equally likely."""
        groups = self.groups()
        group = groups[int(rng.integers(len(groups)))]
        width = self.widths[int(rng.integers(len(self.widths)))]
        depth = self.depths[int(rng.integers(len(self.depths)))]
        return Candidate(width, tuple(group[int(rng.integers(len(group)))] for _ in range(depth)))
