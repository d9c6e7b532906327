"""A derived space's parts: what comes before the units, the units, and what comes after them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Any, ClassVar, NoReturn

from nas_kd.errors import SettingError
from nas_kd.space.arch import Candidate, Cost, Layer, Setting
from nas_kd.space.ends import Head, Stem
from nas_kd.space.part import LATER
from nas_kd.space.stages import Stage

Costs = tuple[tuple[int, int, int], ...]  # height of the image in pixels, MACs, parameters


def counted(layer: Mapping[str, Any], size: int) -> Cost:
    """Look a part's cost up.

    Args:
        layer: what it resolves to, with costs by the height of the image.
        size: height of the image in pixels: no part of a derived space changes it.

    Raises:
        SettingError: it was not counted at this size.
    """
    for known, macs, params in layer["costs"]:
        if known == size:
            return Cost(macs, params)
    sizes = ", ".join(str(known) for known, _, _ in layer["costs"])
    raise SettingError("resolution", size, f"{sizes} pixels, for which the space was derived", "derive it at this size")


def _unbuildable(*_: Any, **__: Any) -> NoReturn:
    raise TypeError("a derived space builds its networks as a whole: use space.build or nas_kd.Supernet(space)")


@dataclass(frozen=True, kw_only=True)
class UnitStage(Stage):
    """A unit of the teacher: as it is, narrower inside, or left out; or a layer whose outputs are cut.

    Args:
        path: of the unit or the layer in the teacher.
        kept: of each group of channels inside, how many parts may stay, rising; the last is all of them.
        removable: whether it may be left out.
        costs: by input width, width and choice (None: left out), the cost by the height of the image.
    """

    path: str
    kept: tuple[tuple[int, ...], ...]
    removable: bool
    costs: tuple[tuple[tuple[int, int, Layer | None], Costs], ...] = field(repr=False)
    op: ClassVar[str] = "unit"
    legend: ClassVar[str] = "one box a unit of the teacher: parts of its channels that stay"

    def __post_init__(self) -> None:
        if self.depths not in ((1,), (0, 1)):
            raise SettingError("depths", self.depths, "(1,), or (0, 1) of a unit that may be left out")

    @property
    def fields(self) -> tuple[str, ...]:  # type: ignore[override]
        """One a group of channels: ``kept``, ``kept_2`` ..."""
        return tuple("kept" if number == 1 else f"kept_{number}" for number in range(1, len(self.kept) + 1))

    def groups(self) -> tuple[tuple[Layer, ...], ...]:
        return (tuple(product(*self.kept)),)

    @cached_property
    def _costs(self) -> dict[tuple[int, int, Layer | None], Costs]:
        return dict(self.costs)

    def resolve(self, candidate: Candidate, in_width: int) -> list[dict[str, Any]]:
        layer = candidate.layers[0] if candidate.layers else None
        if self.keeps_width:  # look-up tables ask for all pairs of widths
            in_width = candidate.width
        return [{"op": "unit", "costs": self._costs[in_width, candidate.width, layer]}]

    def resolve_layer(self, layer: Layer, in_width: int, width: int, stride: int) -> dict[str, Any]:
        return {"op": "unit", "costs": self._costs[in_width, width, layer]}

    def label(self, layer: Layer) -> str:
        return "/".join(f"{value:g}" for value in layer) or "whole"

    def share(self, layer: Layer) -> float:
        shares = [value / counts[-1] for value, counts in zip(layer, self.kept, strict=True)]
        return sum(shares) / len(shares) if shares else 1.0

    @staticmethod
    def count(layer: Mapping[str, Any], size: int) -> tuple[Cost, int]:
        return counted(layer, size), size

    static = staticmethod(_unbuildable)
    elastic = _unbuildable


@dataclass(frozen=True, kw_only=True)
class KeepingStage(UnitStage):
    """A unit on a stream, whose width it keeps."""

    keeps_width: ClassVar[bool] = True


@dataclass(frozen=True)
class TeacherStem(Stem):
    """All of the teacher whose cost no choice changes, charged before the first unit.

    Args:
        width: channels of the first unit's input.
        costs: by the height of the image.
        origin: hash of the teacher's weights and of the order of its channels.
    """

    width: int
    costs: Costs
    origin: str
    op: ClassVar[str] = "teacher_stem"
    fields: ClassVar[tuple[str, ...]] = ("width",)

    @property
    def stride(self) -> int:
        return 1

    def options(self) -> tuple[tuple[Setting, ...], ...]:
        return ((self.width,),)

    def resolve(self, setting: Layer, in_chans: int) -> dict[str, Any]:
        return {"op": "teacher_stem", "costs": self.costs}

    @staticmethod
    def count(layer: Mapping[str, Any], size: int) -> tuple[Cost, int]:
        return counted(layer, size), size

    static = staticmethod(_unbuildable)
    elastic = _unbuildable


@dataclass(frozen=True)
class TeacherHead(Head):
    """The end of the teacher.

    Args:
        costs: by the width of the last stream, the cost by the height of the image; () where it is the stem's.
    """

    costs: tuple[tuple[int, Costs], ...] = field(default=(), repr=False, metadata=LATER)
    op: ClassVar[str] = "teacher_head"
    fields: ClassVar[tuple[str, ...]] = ()

    def options(self) -> tuple[tuple[Setting, ...], ...]:
        return ()

    def resolve(self, setting: Layer, in_width: int, num_classes: int) -> dict[str, Any]:
        return {"op": "teacher_head", "costs": dict(self.costs).get(in_width)}

    @staticmethod
    def count(layer: Mapping[str, Any], size: int) -> tuple[Cost, int]:
        return (Cost(0, 0) if layer["costs"] is None else counted(layer, size)), 1

    static = staticmethod(_unbuildable)
    elastic = _unbuildable
