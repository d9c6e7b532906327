"""A search engine of one's own: an object that proposes points, and the loop that keeps the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from nas_kd.errors import SettingError
from nas_kd.searcher.fill import unseen
from nas_kd.searcher.variables import Point, SearchVariables

Row = dict[str, Any]
PATIENCE = 20  # proposals in a row that bring nothing new before a random new point is taken


@dataclass(frozen=True)
class Problem:
    """What an engine searches.

    Args:
        variables: the dimensions; a point is one index per variable, and ``variables.decode(point)`` its arch.
        affordable: whether a point keeps the budget that is counted: no images, no clock.
        cost: multiply-adds of a point.
        objectives: what to be good in: ``accuracy`` (high) and costs (low), all in the rows.
        trials: number of distinct archs.
        seed: the run's seed.
    """

    variables: SearchVariables
    affordable: Callable[[Point], bool]
    cost: Callable[[Point], int]
    objectives: Sequence[str]
    trials: int
    seed: int


class Engine(Protocol):
    """Proposes archs; pass one as ``search(engine=...)``."""

    @property
    def name(self) -> str:
        """What the run's record and its folders call it."""

    def propose(self, problem: Problem, rows: Sequence[Row]) -> Point | None:
        """Return the next point; None when it has no more.

        A function of its arguments and nothing else, so that a search goes on where it stopped: a generator is
        reseeded from ``problem.seed`` and ``len(rows)``.

        Args:
            problem: the space, the budget and the seed.
            rows: what was proposed before, in order: number, kind (``infeasible`` were not evaluated), feasible,
                i_1 ... i_D, and where evaluated the scores and costs.
        """


def point_of(row: Mapping[str, Any], dimensions: int) -> Point:
    """Return the point of a row."""
    return tuple(int(row[f"i_{i}"]) for i in range(1, dimensions + 1))


def one_by_one(
    engine: Engine,
    problem: Problem,
    evaluate: Callable[[Point], Mapping[str, float]],
    *,
    feasible: Callable[[Point], bool],
    done: Sequence[Mapping[str, Any]] = (),
    record: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """Evaluate what an engine proposes until there are enough distinct archs.

    In the place of a point that it proposed before, after 20 in a row that do not keep the budget, and when it has
    none left, a random new one is taken.

    Args:
        engine: proposes.
        problem: the space, the budget and the seed.
        evaluate: the scores and costs of a point; called once a distinct arch.
        feasible: whether a point keeps the whole budget.
        done: all rows of an earlier call with the same arguments, in order.
        record: called with each new row as soon as it is known.

    Returns:
        One row a proposal: number, kind (``trial``, ``random`` or ``infeasible``), i_1 ... i_D, feasible and, where
        evaluated, the scores.

    Raises:
        SettingError: the engine proposes what is no point.
    """
    sizes = problem.variables.sizes
    rows: list[Row] = [dict(row) for row in done]
    seen = {point_of(row, len(sizes)): row["kind"] != "infeasible" for row in rows}

    def fits(point: Point) -> bool:
        return problem.affordable(point) and feasible(point)

    def new(point: Point) -> bool:
        point = problem.variables.canonical(point)
        return point not in seen and fits(point)

    while sum(seen.values()) < problem.trials:
        kind = "trial"
        point = _next(engine, problem, rows, sizes) if _stalled(rows) < PATIENCE else None
        if point is None or point in seen:
            kind = "random"
            known = sorted(place for place, evaluated in seen.items() if evaluated)
            drawn = unseen(sizes, new, known, problem.seed, len(rows))
            if drawn is None:
                break
            point = problem.variables.canonical(drawn)
        seen[point] = fits(point)
        indices = {f"i_{i}": at for i, at in enumerate(point, 1)}
        row: Row = {"number": len(rows), "kind": kind if seen[point] else "infeasible", **indices}
        row |= {"feasible": seen[point]} | (dict(evaluate(point)) if seen[point] else {})
        rows.append(row)
        record(row)
    return rows


def _next(engine: Engine, problem: Problem, rows: Sequence[Row], sizes: Sequence[int]) -> Point | None:
    """Ask an engine, and refuse what is no point."""
    given = engine.propose(problem, rows)
    if given is None:
        return None
    inside = len(given) == len(sizes) and all(0 <= at < size for at, size in zip(given, sizes, strict=True))
    if not inside:
        expected = f"{len(sizes)} indices, each from 0 and below {', '.join(map(str, sizes))}"
        raise SettingError(
            f"{engine.name}.propose", given, expected, "return one index per variable of problem.variables"
        )
    return problem.variables.canonical([int(at) for at in given])


def _stalled(rows: Sequence[Mapping[str, Any]]) -> int:
    """Count the rows since the last evaluation."""
    kinds = [row["kind"] for row in reversed(rows)]
    return next((at for at, kind in enumerate(kinds) if kind != "infeasible"), len(kinds))
