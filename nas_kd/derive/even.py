"""The cuts that one makes by hand: one share of the depth, of the width, or of both, in all of a teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import groupby
from typing import NamedTuple

from nas_kd.derive.space import TeacherSpace
from nas_kd.space.arch import Arch, Candidate, Cost

PARTS = 64  # that the width is cut into
LEAST = 3  # of them, below which a cut is not tried
Fits = Callable[[Cost], bool]


class EvenCut(NamedTuple):
    """A teacher cut evenly.

    Args:
        space: offers its widths and the teacher's.
        arch: of that space.
        width: share of the inner channels that stays.
        depth: share of the blocks that stays, of those that could be left out.
    """

    space: TeacherSpace
    arch: Arch
    width: float
    depth: float


class EvenCuts:
    """The even cuts of a teacher within a budget.

    Args:
        space: of the teacher.
        fits: whether a cost is within the budget.
        cost: what ``space.cost`` needs besides an arch.
    """

    def __init__(self, space: TeacherSpace, fits: Fits, cost: Mapping[str, int]) -> None:
        self.space = space
        self._fits = fits
        self._cost = cost
        self._homes: dict[int, TeacherSpace] = {}

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
        longest = max(len(run) for run in _runs(self.space))
        return [count / longest for count in range(longest, 0, -1)]

    def _within(self, cut: EvenCut) -> bool:
        return self._fits(cut.space.cost(cut.arch, **self._cost))

    def _cut(self, parts: int, depth: float) -> EvenCut:
        if parts not in self._homes:
            self._homes[parts] = self.space.offering((parts / PARTS,), multiple=1)
        home = self._homes[parts]
        stays = _stays(home, depth)
        stages = []
        for index, stage in enumerate(home.stages):
            narrow = stage.groups()[0][0]  # the narrowest
            stages.append(Candidate(stage.widths[0], (narrow,) if index in stays else ()))
        return EvenCut(home, home.arch(stages), parts / PARTS, depth)

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


def _runs(space: TeacherSpace) -> list[list[int]]:
    """Return the numbers of the units, those of one shape together."""
    shapes = [unit.out_shape for unit in space.derived.units]
    return [list(run) for _, run in groupby(range(len(shapes)), key=shapes.__getitem__)]


def _stays(space: TeacherSpace, depth: float) -> set[int]:
    """Choose the units that stay: evenly spread over each run, first and last among them, and what has to."""
    found = {index for index, unit in enumerate(space.derived.units) if not unit.removable}
    for run in _runs(space):
        count = max(1, round(depth * len(run)))
        found |= {run[round(place * (len(run) - 1) / max(1, count - 1))] for place in range(count)}
    return found
