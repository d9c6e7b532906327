"""Some archs are measured, a predictor learns from them, and those that it likes best are measured next.

Archs to begin with are settings of the whole network and random ones. Then the predictor is fitted to all that was
measured, evolution looks for the archs within the budget of which it expects most, the best of them are measured, a
tenth of the trials, and so on. Its error on archs that were held out is logged, and stands in predictor.csv.

Source: OFA (Cai et al. 2020), section 3.4: a predictor on one-hot codes, and evolution on what it predicts. That it
learns again from what it proposed is our choice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from nas_kd.config.measures import COSTS, low_is_better
from nas_kd.runs.log import log_message
from nas_kd.runtime.seeds import seed_for
from nas_kd.searcher.engine import Problem, Proposal, Row, point_of
from nas_kd.searcher.grid import coarse_grid
from nas_kd.searcher.one_by_one import search_one_by_one
from nas_kd.searcher.variables import Point

if TYPE_CHECKING:
    from nas_kd.runs.stage import Stage
    from nas_kd.searcher.evaluation import Evaluation
    from nas_kd.searcher.trials import TrialLog
    from nas_kd.supernet.predictor import Predictor

FIRST = 0.4  # share of the trials that the first predictor learns from
GRID = 0.25  # share of those that are settings of the whole network
EVERY = 0.1  # share of the trials that one predictor proposes
LEAST = 10  # archs that a predictor learns from, and proposes, at least
POPULATION = 100
PARENTS = 25
GENERATIONS = 15
CHANGE = 0.1  # probability that a mutation draws a variable again


class PredictorEngine:
    """Measures what a predictor expects most of."""

    name = "predictor"
    guided: ClassVar = True
    shared: ClassVar = False  # the predictor learns from all rows before
    fixed_objectives: ClassVar = False

    def __init__(self) -> None:
        self._first: list[Point] | None = None
        self._expected: dict[int, list[Point]] = {}  # number of measured archs -> proposals, the best first
        self._stage: Stage | None = None

    def search(self, evaluation: Evaluation) -> TrialLog:
        """Measure, predict, measure."""
        from nas_kd.space.rows import stage_scores  # pandas

        self._stage = evaluation.stage
        scores = stage_scores(evaluation.budget.space, evaluation.need_guide().tables)
        return search_one_by_one(self, evaluation, lambda arch: sum(scores(arch)))

    def propose(self, problem: Problem, rows: Sequence[Row]) -> Proposal | None:
        """Return the next arch to begin with, then the one that the last predictor expects most of."""
        dimensions = len(problem.variables.sizes)
        seen = {point_of(row, dimensions) for row in rows}
        measured = [row for row in rows if row["kind"] != "infeasible"]
        begin = max(LEAST, math.ceil(FIRST * problem.trials))
        every = max(LEAST, math.ceil(EVERY * problem.trials))
        if self._first is None:
            most = math.ceil(GRID * begin)
            self._first = coarse_grid(problem.variables, problem.affordable, problem.cost, most)
        if len(measured) < begin:
            left = next((point for point in self._first if point not in seen), None)
            return None if left is None else Proposal(left, "coarse")  # None: a random one
        known = begin + every * ((len(measured) - begin) // every)
        if known not in self._expected:
            self._expected[known] = self._evolved(problem, measured[:known])
        left = next((point for point in self._expected[known] if point not in seen), None)
        return None if left is None else Proposal(left, "predicted")

    def _evolved(self, problem: Problem, measured: Sequence[Row]) -> list[Point]:
        """Fit a predictor, and return the archs that it expects most of, the best first."""
        import numpy as np

        from nas_kd.supernet.predictor import MIN_ARCHS, fit_predictor

        quality = next(name for name in problem.objectives if name not in COSTS)
        sign = -1.0 if low_is_better(quality) else 1.0
        space = problem.variables.space
        found = {point_of(row, len(problem.variables.sizes)): sign * float(row[quality]) for row in measured}
        found = {point: value for point, value in found.items() if math.isfinite(value)}
        if len(found) < MIN_ARCHS:  # networks that gave no number: random ones come next
            return []
        archs = {point: problem.variables.decode(point) for point in found}
        predictor = fit_predictor(space, list(archs.values()), list(found.values()), problem.seed)
        self._note(predictor, quality)
        rng = np.random.default_rng(seed_for(problem.seed, "evolution", len(measured)))
        sizes = np.array(problem.variables.sizes)
        expected = dict(zip(archs, predictor(list(archs.values())).tolist(), strict=True))
        for _ in range(GENERATIONS):
            ranked = sorted(expected, key=lambda point: (-expected[point], point))[:PARENTS]
            children: dict[Point, Any] = {}
            for _ in range(POPULATION):
                one, other = (np.array(ranked[int(rng.integers(len(ranked)))]) for _ in range(2))
                cross = rng.random() < 0.5
                mixed = np.where(rng.random(len(sizes)) < 0.5, one, other) if cross else one
                drawn = np.where(rng.random(len(sizes)) < CHANGE, rng.integers(0, sizes), mixed)
                point = problem.variables.canonical(tuple(drawn.tolist()))
                if point not in expected and problem.affordable(point):
                    children[point] = problem.variables.decode(point)
            if children:
                expected |= zip(children, predictor(list(children.values())).tolist(), strict=True)
        return sorted(set(expected) - set(found), key=lambda point: (-expected[point], point))

    def _note(self, predictor: Predictor, quality: str) -> None:
        """Log how good a predictor is, and write it down once."""
        log_message(None if self._stage is None else self._stage.run, f"{quality}: {predictor.words}")
        if self._stage is not None:
            file = self._stage.log("predictor.csv")
            known = file.frame()
            if not len(known) or predictor.archs not in set(known["archs"]):
                named = {"objective": quality, "archs": predictor.archs, "held_out": predictor.held_out}
                file.append(named | {"rmse": predictor.rmse, "tau": predictor.tau})
