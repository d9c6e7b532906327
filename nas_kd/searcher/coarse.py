"""Coarse-to-fine search: a grid of settings for the whole network, then mutations around the best of it.

The rows are the truth: each proposal is a function of the seed, its number and the rows before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from nas_kd.errors import SettingError
from nas_kd.runtime.seeds import seed_for
from nas_kd.searcher.fill import unseen
from nas_kd.searcher.variables import Point, SearchVariables

Row = dict[str, Any]
GRID = 2_000  # points of a grid at most; kinds with many levels are thinned out above
SHARE = 0.4  # of all evaluations that the grid may take
TRIES = 100  # mutations that give nothing new before another new point is taken
PATIENCE = 20  # proposals in a row that are infeasible before that


def coarse_to_fine(
    variables: SearchVariables,
    evaluate: Callable[[Point], Mapping[str, float]],
    *,
    cost: Callable[[Point], float],
    gain: str = "accuracy",
    affordable: Callable[[Point], bool] = lambda point: True,
    feasible: Callable[[Point], bool] = lambda point: True,
    trials: int,
    seed: int = 0,
    done: Sequence[Mapping[str, Any]] = (),
    record: Callable[[Row], None] | None = None,
) -> list[Row]:
    """Search for archs of high gain and low cost, coarsely first.

    Coarse: settings for the whole network. All variables of a kind (resolution, width, depth, kernel, expand ...)
    move together from their smallest to their largest value, and every combination of kinds is a point. Of
    those within the budget up to ``SHARE`` of the evaluations are made, evenly spaced in cost. Fine: a point
    of the front so far, the better in gain of two drawn ones, is mutated stage by stage: each stage, and
    resolution, stem and head, is changed with probability one over their number; a changed one draws each of
    its variables anew with probability one half.

    Args:
        variables: the dimensions of the space.
        evaluate: the scores of a point by name, ``gain`` among them; called once a distinct arch.
        cost: what a point costs, counted; the front is that of ``gain`` and this.
        gain: name of the score to maximise.
        affordable: whether a point keeps the budget that is counted; asked often.
        feasible: whether a point keeps the whole budget; asked of affordable points that are proposed.
        trials: total number of distinct archs, earlier ones included.
        seed: the run's seed.
        done: all rows of an earlier call with the same arguments, in order.
        record: called with each new row as soon as it is known.

    Returns:
        One row a proposal: number, kind, i_1 ... i_D, feasible and, where evaluated, the scores. Kinds are
        ``coarse``, ``fine``, ``random`` (taken because mutations gave nothing new) and ``infeasible`` (never
        evaluated). Fewer evaluations come back only when no further point is found.

    Raises:
        SettingError: a count or an earlier row is not usable.

    Source: BigNAS (Yu et al. 2020), coarse-to-fine architecture selection. How the grid is thinned out, which
    parents are taken and how far they move is not told there and is our choice.
    """
    if trials < 1:
        raise SettingError("trials", trials, "an integer of at least 1")
    search = _Search(variables, cost, gain, affordable, feasible, seed)
    rows: list[Row] = [dict(row) for row in done]
    for number, row in enumerate(rows):
        search.add(row, search.point(row, number))
    grid = coarse_grid(variables, affordable, cost, math.ceil(SHARE * trials))
    while len(search.found) < trials:
        kind = "coarse"
        point = next((point for point in grid if point not in search.seen), None)
        if point is None:
            kind, point = search.propose(len(rows))
            if point is None:
                break
        fits = feasible(point)
        indices = {f"i_{i}": at for i, at in enumerate(point, 1)}
        row = {"number": len(rows), "kind": kind if fits else "infeasible", **indices, "feasible": fits}
        row |= dict(evaluate(point)) if fits else {}
        search.add(row, point)
        rows.append(row)
        if record is not None:
            record(row)
    return rows


def coarse_grid(
    variables: SearchVariables, affordable: Callable[[Point], bool], cost: Callable[[Point], float], most: int
) -> list[Point]:
    """Return settings for the whole network within a budget.

    Args:
        variables: the dimensions of the space.
        affordable: whether a point keeps the budget.
        cost: what a point costs.
        most: maximum number of points.

    Returns:
        Distinct canonical points from the cheapest to the dearest, evenly spaced in that order, both ends
        among them, where there are more than ``most``.
    """
    kinds = list(dict.fromkeys(variable.kind for variable in variables.variables))
    levels = {
        kind: max(len(variable.values) for variable in variables.variables if variable.kind == kind) for kind in kinds
    }
    while math.prod(levels.values()) > GRID:
        levels[max(levels, key=lambda kind: levels[kind])] -= 1
    found: dict[Point, float] = {}
    for at in product(*(range(count) for count in levels.values())):
        level = {kind: i / max(1, levels[kind] - 1) for kind, i in zip(kinds, at, strict=True)}
        point = variables.canonical(
            [round(level[variable.kind] * (len(variable.values) - 1)) for variable in variables.variables]
        )
        if point not in found and affordable(point):
            found[point] = cost(point)
    ordered = sorted(found, key=lambda point: (found[point], point))
    if len(ordered) <= most:
        return ordered
    return [ordered[i] for i in np.unique(np.linspace(0, len(ordered) - 1, most).round().astype(int))]


class _Search:
    """What stays the same during one call, and the archs seen so far, as canonical points."""

    def __init__(
        self,
        variables: SearchVariables,
        cost: Callable[[Point], float],
        gain: str,
        affordable: Callable[[Point], bool],
        feasible: Callable[[Point], bool],
        seed: int,
    ) -> None:
        self.variables = variables
        self.cost = cost
        self.gain = gain
        self.seed = seed
        self.affordable = affordable
        self.feasible = feasible
        self.sizes = variables.sizes
        parts = list(dict.fromkeys(variable.part for variable in variables.variables))
        self.parts = [
            [at for at, variable in enumerate(variables.variables) if variable.part == part] for part in parts
        ]
        self.found: dict[Point, float] = {}  # evaluated: the gain
        self.seen: set[Point] = set()  # evaluated or infeasible
        self.stalled = 0  # infeasible proposals since the last evaluation

    def point(self, row: Mapping[str, Any], number: int) -> Point:
        """Read the point of an earlier row."""
        try:
            given = int(row["number"])
            point = tuple(int(row[f"i_{i}"]) for i in range(1, len(self.sizes) + 1))
        except (KeyError, TypeError, ValueError) as error:
            expected = "rows that coarse_to_fine returned"
            raise SettingError("done", dict(row), expected, "start the search afresh") from error
        if given != number:
            expected = f"number {number}: rows of every kind from 0 on, none left out"
            raise SettingError("done", given, expected, "start the search afresh")
        return point

    def add(self, row: Mapping[str, Any], point: Point) -> None:
        """Take a row into account."""
        self.seen.add(point)
        self.stalled += 1
        if row["kind"] != "infeasible":
            if self.gain not in row:
                raise SettingError("gain", self.gain, f"a score that evaluate returns: {', '.join(row)}")
            self.found[point], self.stalled = float(row[self.gain]), 0

    def propose(self, number: int) -> tuple[str, Point | None]:
        """Return the next point and its kind; None when nothing new is found."""
        rng = np.random.default_rng(seed_for(self.seed, "fine", number))
        front = self.front()
        for _ in range(TRIES if front and self.stalled < PATIENCE else 0):
            first, second = (front[int(rng.integers(len(front)))] for _ in range(2))
            parent = first if self.found[first] >= self.found[second] else second
            point = self.variables.canonical(self.mutated(parent, rng))
            if point not in self.seen and self.affordable(point):
                return "fine", point

        def new(point: Point) -> bool:
            point = self.variables.canonical(point)
            return point not in self.seen and self.affordable(point) and self.feasible(point)

        drawn = unseen(self.sizes, new, sorted(self.found), self.seed, number)
        return "random", None if drawn is None else self.variables.canonical(drawn)

    def front(self) -> list[Point]:
        """Return the evaluated points that no other beats in gain and cost; a NaN beats and stays nothing."""
        known = [point for point, gain in self.found.items() if not math.isnan(gain)]
        front: list[Point] = []
        for point in sorted(known, key=lambda point: (self.cost(point), -self.found[point], point)):
            if not front or self.found[point] > self.found[front[-1]]:
                front.append(point)
        return front

    def mutated(self, parent: Point, rng: np.random.Generator) -> Point:
        """Change some parts of a point."""
        point = list(parent)
        touched = rng.random(len(self.parts)) < 1.0 / len(self.parts)
        touched[int(rng.integers(len(self.parts)))] |= not touched.any()
        for part, change in zip(self.parts, touched, strict=True):
            for at in part:
                drawn = int(rng.integers(self.sizes[at]))
                anew = rng.random() < 0.5
                if change and anew:
                    point[at] = drawn
        return tuple(point)
