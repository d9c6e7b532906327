"""The loop around an engine that proposes: distinct archs within the budget, evaluated one after the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from nas_kd.errors import SettingError
from nas_kd.searcher.engine import Engine, Problem, Proposal, Row
from nas_kd.searcher.fill import unseen
from nas_kd.searcher.proposals import given_point
from nas_kd.searcher.variables import Point, SearchVariables
from nas_kd.space import Arch

if TYPE_CHECKING:
    from nas_kd.searcher.evaluation import Evaluation
    from nas_kd.searcher.trials import TrialLog

PATIENCE = 20  # proposals in a row without a new one before a random new point is taken


@dataclass(frozen=True)
class OneByOne:
    """The search of a custom engine."""

    engine: Engine
    guided: ClassVar = False
    shared: ClassVar = False
    fixed_objectives: ClassVar = False

    @property
    def name(self) -> str:
        """The engine's own."""
        return self.engine.name

    def search(self, evaluation: Evaluation) -> TrialLog:
        """Evaluate what the engine proposes until there are enough archs."""
        return search_one_by_one(self.engine, evaluation)


def search_one_by_one(
    engine: Engine, evaluation: Evaluation, additive: Callable[[Arch], float] = lambda arch: math.nan
) -> TrialLog:
    """Vary archs dimension by dimension, as an engine proposes.

    Args:
        additive: returns the sum of an arch's stage scores.
    """
    budget = evaluation.budget
    variables = SearchVariables(budget.space)

    @cache
    def arch(point: Point) -> Arch:
        return variables.decode(point)

    problem = Problem(
        variables,
        affordable=lambda point: budget.affordable(arch(point)),
        cost=lambda point: budget.cost_of(arch(point)).macs,
        objectives=evaluation.objectives,
        trials=evaluation.trials,
        seed=evaluation.seed,
        metric=evaluation.metric,
    )
    with evaluation.log(lambda point: arch(tuple(point)), len(variables.variables), additive) as log:
        one_by_one(
            engine,
            problem,
            lambda point: evaluation.scores(arch(point)),
            feasible=lambda point: budget.fits(arch(point)),
            done=log.proposals,
            record=log.record,
        )
    return log


def one_by_one(
    engine: Engine,
    problem: Problem,
    evaluate: Callable[[Point], Mapping[str, float]],
    *,
    feasible: Callable[[Point], bool] = lambda point: True,
    done: Sequence[Mapping[str, Any]] = (),
    record: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """Evaluate what an engine proposes until there are enough distinct archs.

    A random new point replaces one that was proposed before; so it does after 20 in a row that exceed the budget, and
    when the engine has none left.

    Args:
        evaluate: returns the scores and costs of a point; called once per distinct arch.
        feasible: whether a point is within the whole budget; called for affordable points that are proposed.
        done: all rows of an earlier call with the same arguments, in order.
        record: called with each new row as soon as it is known.

    Returns:
        One row per proposal: number, kind (``trial`` or the proposal's own, ``random`` or ``infeasible``), i_1 ... i_D,
        feasible and, where evaluated, the scores. Fewer evaluations come back only when no further point is found.

    Raises:
        SettingError: the engine proposes an invalid point, or a count, an earlier row or a score is invalid.
    """
    sizes = problem.variables.sizes
    if problem.trials < 1:
        raise SettingError("trials", problem.trials, "an integer of at least 1")
    rows: list[Row] = [dict(row) for row in done]
    seen = {given_point(row, number, sizes): row["kind"] != "infeasible" for number, row in enumerate(rows)}

    def fits(point: Point) -> bool:
        return problem.affordable(point) and feasible(point)

    def new(point: Point) -> bool:
        point = problem.variables.canonical(point)
        return point not in seen and fits(point)

    while sum(seen.values()) < problem.trials:
        proposed = _next(engine, problem, rows, sizes) if _stalled(rows) < PATIENCE else None
        if proposed is None or proposed.point in seen:
            known = sorted(place for place, evaluated in seen.items() if evaluated)
            drawn = unseen(sizes, new, known, problem.seed, len(rows))
            if drawn is None:
                break
            proposed = Proposal(problem.variables.canonical(drawn), "random")
        point = proposed.point
        seen[point] = fits(point)
        indices = {f"i_{i}": at for i, at in enumerate(point, 1)}
        row: Row = {"number": len(rows), "kind": proposed.kind if seen[point] else "infeasible", **indices}
        row |= {"feasible": seen[point]} | (_scored(evaluate(point), problem) if seen[point] else {})
        rows.append(row)
        record(row)
    return rows


def _scored(scores: Mapping[str, float], problem: Problem) -> dict[str, float]:
    missing = [name for name in problem.objectives if name not in scores]
    if missing:
        raise SettingError("objective", missing[0], f"a score that evaluate returns: {', '.join(scores)}")
    return dict(scores)


def _next(engine: Engine, problem: Problem, rows: Sequence[Row], sizes: Sequence[int]) -> Proposal | None:
    """Return the proposal of an engine, checked."""
    given = engine.propose(problem, rows)
    if given is None:
        return None
    point, kind = given if isinstance(given, Proposal) else Proposal(given)
    inside = len(point) == len(sizes) and all(0 <= at < size for at, size in zip(point, sizes, strict=True))
    if not inside:
        expected = f"{len(sizes)} indices, each from 0 and below {', '.join(map(str, sizes))}"
        raise SettingError(
            f"{engine.name}.propose", point, expected, "return one index per variable of problem.variables"
        )
    return Proposal(problem.variables.canonical([int(at) for at in point]), kind)


def _stalled(rows: Sequence[Mapping[str, Any]]) -> int:
    """Count the rows since the last evaluation."""
    kinds = [row["kind"] for row in reversed(rows)]
    return next((at for at, kind in enumerate(kinds) if kind != "infeasible"), len(kinds))
