"""Coarse-to-fine search: a grid of settings for the whole network, then mutations around the best of it.

Coarse: settings for the whole network. All variables of a kind (resolution, width, depth, kernel, expand ...) move
together from their smallest to their largest value, and every combination of kinds is a point. Of those within the
budget up to ``SHARE`` of the evaluations are made, evenly spaced in cost. Fine: a point of the front so far, the better
in accuracy of two drawn ones, is mutated stage by stage: each stage, and resolution, stem and head, is changed with
probability one over their number; a changed one draws each of its variables again with probability one half.

Source: BigNAS (Yu et al. 2020), coarse-to-fine architecture selection. How the grid is thinned out, which parents are
taken and how far they move is not specified there and is our choice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from nas_kd.runtime.seeds import seed_for
from nas_kd.searcher.engine import Problem, Proposal, Row, point_of
from nas_kd.searcher.grid import coarse_grid
from nas_kd.searcher.one_by_one import search_one_by_one
from nas_kd.searcher.variables import Point, SearchVariables

if TYPE_CHECKING:
    from nas_kd.searcher.evaluation import Evaluation
    from nas_kd.searcher.trials import TrialLog

SHARE = 0.4  # of all evaluations that the grid may use
ATTEMPTS = 100  # mutations without a new point before a random new point is taken


class Coarse:
    """A grid of whole networks, then mutations of its front."""

    name = "coarse"
    guided: ClassVar = False
    shared: ClassVar = False  # its front is that of all rows before
    fixed_objectives: ClassVar = True

    def __init__(self) -> None:
        self._grid: tuple[Problem, list[Point]] | None = None  # of the last problem

    def search(self, evaluation: Evaluation) -> TrialLog:
        """Propose, evaluate, and propose again."""
        return search_one_by_one(self, evaluation)

    def propose(self, problem: Problem, rows: Sequence[Row]) -> Proposal | None:
        """Return the next point of the grid, then mutations; None when these are all known."""
        dimensions = len(problem.variables.sizes)
        seen = {point_of(row, dimensions) for row in rows}
        left = next((point for point in self.grid(problem) if point not in seen), None)
        if left is not None:
            return Proposal(left, "coarse")
        found = {point_of(row, dimensions): problem.better(row) for row in rows if row["kind"] != "infeasible"}
        front = _front(problem, found)
        rng = np.random.default_rng(seed_for(problem.seed, "fine", len(rows)))
        for _ in range(ATTEMPTS if front else 0):
            first, second = (front[int(rng.integers(len(front)))] for _ in range(2))
            parent = first if found[first] >= found[second] else second
            point = problem.variables.canonical(_mutated(problem.variables, parent, rng))
            if point not in seen and problem.affordable(point):
                return Proposal(point, "fine")
        return None

    def grid(self, problem: Problem) -> list[Point]:
        """Return the points that come first."""
        if self._grid is None or self._grid[0] is not problem:
            most = math.ceil(SHARE * problem.trials)
            self._grid = problem, coarse_grid(problem.variables, problem.affordable, problem.cost, most)
        return self._grid[1]


def _front(problem: Problem, found: Mapping[Point, float]) -> list[Point]:
    """Return the nondominated points in accuracy and cost; points without an accuracy are ignored."""
    known = [point for point, accuracy in found.items() if not math.isnan(accuracy)]
    front: list[Point] = []
    for point in sorted(known, key=lambda point: (problem.cost(point), -found[point], point)):
        if not front or found[point] > found[front[-1]]:
            front.append(point)
    return front


def _mutated(variables: SearchVariables, parent: Point, rng: np.random.Generator) -> Point:
    """Change some parts of a point."""
    names = [variable.part for variable in variables.variables]
    parts = [[at for at, name in enumerate(names) if name == part] for part in dict.fromkeys(names)]
    point = list(parent)
    changed = rng.random(len(parts)) < 1.0 / len(parts)
    changed[int(rng.integers(len(parts)))] |= not changed.any()
    for part, change in zip(parts, changed, strict=True):
        for at in part:
            drawn = int(rng.integers(variables.sizes[at]))
            redraw = rng.random() < 0.5
            if change and redraw:
                point[at] = drawn
    return tuple(point)
