"""The cuts that one makes by hand: one share of the depth, of the width, or of both, in all of a teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from nas_kd.derive.units import Unit
from nas_kd.space.arch import Arch, Candidate, Cost, Layer
from nas_kd.space.elastic import ElasticSpace
from nas_kd.space.stages import Stage

PARTS = 64  # that the width is cut into
LEAST = 3  # of them, below which a cut is not tried
Fits = Callable[[Cost], bool]


class EvenCut(NamedTuple):
    """A teacher cut evenly.

    Args:
        space: the space of the arch.
        arch: what is left.
        width: share of the inner channels that stays.
        depth: share of the blocks that stays, of those that could be left out.
    """

    space: Any
    arch: Arch
    width: float
    depth: float


class EvenCuts:
    """The even cuts of a teacher within a budget.

    Args:
        space: of the teacher.
        units: its units.
        fits: whether a cost is within the budget.
        cost: what ``space.cost`` needs besides an arch.
        offering: gives a space with a share of the channels among its choices; None stays with the choices there are,
            and takes the next lower ones.
    """

    def __init__(
        self,
        space: ElasticSpace,
        units: Sequence[Unit],
        fits: Fits,
        cost: Mapping[str, int],
        offering: Callable[[float], ElasticSpace] | None = None,
    ) -> None:
        self.space = space
        self.units = units
        self._fits = fits
        self._cost = cost
        self._offering = offering
        self._homes: dict[int, ElasticSpace] = {}

    def width(self) -> EvenCut | None:
        """Keep all blocks, and the largest share of their channels that fits; None where none does."""
        return self._widest(1.0)

    def depth(self) -> EvenCut | None:
        """Keep all channels, and the largest share of the blocks that fits; None where none does."""
        return next((cut for depth in self._depths() if self._within(cut := self._cut(PARTS, depth))), None)

    def both(self, count: int = 3) -> list[EvenCut]:
        """Cut depth and width together, in a few proportions.

        Args:
            count: how many, at most, evenly spread between the cut of the width and that of the depth alone.
        """
        most = self.depth()
        between = [depth for depth in self._depths()[1:] if most is None or depth > most.depth]
        places = {round(index * (len(between) - 1) / max(1, count - 1)) for index in range(min(count, len(between)))}
        found = [self._widest(between[place]) for place in sorted(places)]
        return [cut for cut in found if cut is not None]

    def _depths(self) -> list[float]:
        """Return the shares of the blocks that make a difference, falling from 1."""
        longest = max(len(run) for run in _runs(self.units))
        return [count / longest for count in range(longest, 0, -1)]

    def _within(self, cut: EvenCut) -> bool:
        return self._fits(cut.space.cost(cut.arch, **self._cost))

    def _cut(self, parts: int, depth: float) -> EvenCut:
        width = parts / PARTS
        if parts not in self._homes:
            self._homes[parts] = self.space if self._offering is None else self._offering(width)
        home = self._homes[parts]
        stays = _stays(self.units, depth)
        inside = any(unit.groups for unit in self.units)  # else the channels between the layers are cut
        stages = [
            Candidate(
                stage.widths[-1] if inside else _at_most(stage.widths, width),
                (_narrowed(stage, width),) if index in stays else (),
            )
            for index, stage in enumerate(home.stages)
        ]
        return EvenCut(home, home.arch(stages), width, depth)

    def _widest(self, depth: float) -> EvenCut | None:
        """Find the largest share of the width that fits at a depth, by bisection."""
        best = self._cut(PARTS, depth)
        if self._within(best):
            return best
        found = None
        low = LEAST - 1
        high = PARTS
        while high - low > 1:
            middle = (low + high) // 2
            if self._within(cut := self._cut(middle, depth)):
                found = cut
                low = middle
            else:
                high = middle
        return found


def _narrowed(stage: Stage, width: float) -> Layer:
    """Return the most that a unit offers of no more than a share of its channels; the least where all is more."""
    offered = stage.groups()[0]
    return next(
        (layer for layer in reversed(offered) if all(v <= width * w for v, w in zip(layer, offered[-1], strict=True))),
        offered[0],
    )


def _at_most(widths: Sequence[int], share: float) -> int:
    """Return the most channels between layers that are no more than a share; the least where all are more."""
    return max((width for width in widths if width <= share * widths[-1]), default=widths[0])


def _runs(units: Sequence[Unit]) -> list[list[int]]:
    """Return the numbers of the units, those of one shape together."""
    shapes = [unit.out_shape for unit in units]
    return [list(run) for _, run in groupby(range(len(shapes)), key=shapes.__getitem__)]


def _stays(units: Sequence[Unit], depth: float) -> set[int]:
    """Choose the units that stay: evenly spread over each run, first and last among them, and what has to."""
    found = {index for index, unit in enumerate(units) if not unit.removable}
    for run in _runs(units):
        count = max(1, round(depth * len(run)))
        found |= {run[round(place * (len(run) - 1) / max(1, count - 1))] for place in range(count)}
    return found
