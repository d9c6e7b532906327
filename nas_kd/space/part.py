"""The interface of stems, blocks and heads that everything else uses, for any operators."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from nas_kd.errors import SettingError
from nas_kd.space.arch import Cost

if TYPE_CHECKING:
    from torch import nn

# metadata of a field that was added after spaces were published: at its default it is left out of the hash
LATER = {"later": True}
# metadata of a field that was added after runs were recorded: at its default it is left out of the description too
IF_CHANGED = {"described": "if changed"}
EPS = 1e-5  # what batch norms add to the variance, unless a space says otherwise


def ascending(name: str, values: Any, kind: type = int) -> None:
    """Raise SettingError unless ``values`` is a tuple of distinct positive numbers in ascending order."""
    given = isinstance(values, tuple) and all(isinstance(v, (int, kind)) and v is not True for v in values)
    if not given or not values or list(values) != sorted(set(values)) or min(values) <= 0:
        what = "whole numbers" if kind is int else "numbers"
        raise SettingError(name, values, f"a tuple of distinct positive {what} in ascending order")


@dataclass(frozen=True)
class Part(ABC):
    """A stem, the block of a stage, or a head: a frozen description that knows its layers, their cost and networks.

    A subclass is defined in one file with its elastic module and its static twin; nothing else refers to it.
    ``resolve`` of stems and heads and ``resolve_layer`` of stages turn a choice into a plain dictionary with ``op`` and
    everything that ``count`` and ``static`` need, which is an entry of ``arch.json``. Elastic and static modules have
    equal parameter names; the static weights are the first entries (for kernels the centre) of the shared ones.
    """

    op: ClassVar[str]  # kind of its layers in arch.json
    fields: ClassVar[tuple[str, ...]]  # names of the settings of a choice
    typed: ClassVar[bool] = True  # whether the type is part of the space's hash

    @staticmethod
    @abstractmethod
    def count(layer: Mapping[str, Any], size: int) -> tuple[Cost, int]:
        """Return the cost of a resolved layer on an input of ``size`` pixels, and the height of its output."""

    @staticmethod
    @abstractmethod
    def static(layer: Mapping[str, Any]) -> nn.Module:
        """Build a resolved layer as a plain module: stem to map, map to (map, map before the last activation), or
        map to (logits, pooled)."""

    def described(self) -> dict[str, Any]:
        """Return the description as JSON types."""
        values = asdict(self)
        for field in fields(self):
            if field.metadata == IF_CHANGED and values[field.name] == field.default:
                del values[field.name]
        return {"type": type(self).__name__} | values

    @abstractmethod
    def drawing(self) -> dict[str, Any]:
        """Return the label of each choice in figures, as JSON types, for readers that do not know the blocks."""
