"""Stems and heads: the layers before the first stage and after the last one, fixed or elastic."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any

from nas_kd.space.arch import Layer, Setting
from nas_kd.space.part import Part

if TYPE_CHECKING:
    from nas_kd.nn.part import ElasticHead, ElasticPart


def several(value: int | tuple[int, ...]) -> tuple[int, ...]:
    """Return one value, or several, as a tuple."""
    return (value,) if isinstance(value, int) else value


@dataclass(frozen=True)
class End(Part):
    """A stem or a head; its settings with several choices are part of an arch."""

    @abstractmethod
    def options(self) -> tuple[tuple[Setting, ...], ...]:
        """Return the choices of each field, ascending."""

    @cached_property
    def _choices(self) -> tuple[Layer, ...]:
        return tuple(product(*(option for option in self.options() if len(option) > 1)))

    def choices(self) -> tuple[Layer, ...]:
        """Return every combination of the fields that offer more than one value; ``((),)`` if none does."""
        return self._choices

    def named(self, setting: Layer) -> dict[str, Setting]:
        """Return all fields by name for one of ``choices()``."""
        chosen = iter(setting)
        options = zip(self.fields, self.options(), strict=True)
        return {name: next(chosen) if len(option) > 1 else option[0] for name, option in options}

    def largest(self) -> Layer:
        """Return the setting with the largest value of every field."""
        return self._choices[-1]

    def smallest(self) -> Layer:
        """Return the setting with the smallest value of every field."""
        return self._choices[0]

    @abstractmethod
    def label(self, setting: Layer) -> str:
        """Return the label of a setting in a figure."""

    def drawing(self) -> dict[str, Any]:
        return {"choices": [{"setting": list(choice), "label": self.label(choice)} for choice in self.choices()]}


@dataclass(frozen=True)
class Stem(End):
    """The layers before the first stage; one of its fields is ``width``, its output channels."""

    @property
    @abstractmethod
    def stride(self) -> int:
        """The factor by which it reduces height and width."""

    @property
    def multiple(self) -> int:
        """Divisor of the input's height and width, in pixels."""
        return 1

    @property
    def widths(self) -> tuple[int, ...]:
        """Output channels to choose from, ascending."""
        return tuple(int(v) for v in self.options()[self.fields.index("width")])

    def width_of(self, setting: Layer) -> int:
        """Return the output channels of a setting."""
        return int(self.named(setting)["width"])

    @abstractmethod
    def resolve(self, setting: Layer, in_chans: int) -> dict[str, Any]:
        """Return the stem as a plain dictionary that ``count`` and ``static`` read."""

    @abstractmethod
    def elastic(self, in_chans: int) -> ElasticPart:
        """Build the shared weights: a module ``(x, setting, norm) -> (B, width, H', W')``."""

    def label(self, setting: Layer) -> str:
        return " / ".join(f"{value:g}" for value in setting) or f"{self.width_of(setting)} channels"

    def drawing(self) -> dict[str, Any]:
        return super().drawing() | {"stride": self.stride}


@dataclass(frozen=True)
class Head(End):
    """The layers after the last stage."""

    @abstractmethod
    def resolve(self, setting: Layer, in_width: int, num_classes: int) -> dict[str, Any]:
        """Return the head as a plain dictionary that ``count`` and ``static`` read."""

    @abstractmethod
    def elastic(self, inputs: int, num_classes: int) -> ElasticHead:
        """Build the shared weights: a module ``(x, setting, norm, dropout) -> (logits, pooled)``."""

    def label(self, setting: Layer) -> str:
        return ""
