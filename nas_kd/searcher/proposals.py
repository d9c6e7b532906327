"""What a search proposes next: the point of a trial, by its number and the trials before it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from nas_kd.errors import SettingError, nearest
from nas_kd.runtime.seeds import seed_for
from nas_kd.searcher.fill import unseen

if TYPE_CHECKING:
    import optuna
    from optuna.samplers import BaseSampler

Point = tuple[int, ...]
Row = dict[str, Any]
SAMPLERS = ("tpe", "nsga2", "random")
ROW = "row"  # user attribute of a trial: its row without number and point


class Proposals:
    """The rules of one search, and the points seen so far.

    Args:
        sizes: number of choices of each stage, or variable.
        constraints: values by name; a point is feasible when all are 0 or less. None allows every point.
        objective: names of the scores to minimise.
        maximise: which of them to maximise instead.
        canonical: returns the point that represents all points of the same subnet; None: no two are the same.
        sampler: one of SAMPLERS, an Optuna sampler, or a function from a seed to one.
        seed: the run's seed.

    Raises:
        SettingError: a size, sampler or name is invalid.
    """

    def __init__(
        self,
        sizes: Sequence[int] | Mapping[str, int],
        constraints: Callable[[Point], Mapping[str, float]] | None,
        objective: str | Sequence[str],
        maximise: Sequence[str],
        canonical: Callable[[Point], Point] | None,
        sampler: str | BaseSampler | Callable[[int], BaseSampler],
        seed: int,
    ) -> None:
        self.sizes = [*(sizes.values() if isinstance(sizes, Mapping) else sizes)]
        self.labels = [*sizes] if isinstance(sizes, Mapping) else []
        if not self.sizes or min(self.sizes) < 1:
            raise SettingError("sizes", self.sizes, "one integer of at least 1 per stage")
        if isinstance(sampler, str) and sampler not in SAMPLERS:
            raise SettingError("sampler", sampler, ", ".join(SAMPLERS), nearest(sampler, SAMPLERS))
        if not isinstance(sampler, str) and not callable(sampler) and not hasattr(sampler, "sample_relative"):
            expected = f"{', '.join(SAMPLERS)}, an Optuna sampler, or a function from a seed to one"
            raise SettingError("sampler", type(sampler).__name__, expected, "use sampler='tpe'")
        self.names = [objective] if isinstance(objective, str) else list(objective)
        if unknown := [name for name in maximise if name not in self.names]:
            raise SettingError("maximise", unknown, f"some of the objectives {', '.join(self.names)}")
        self.signs = [-1 if name in maximise else 1 for name in self.names]
        self.constraints = constraints
        self.make = sampler
        self.seed = seed
        self.canonical = canonical or (lambda point: point)
        self.known: dict[Point, Mapping[str, Any]] = {}  # evaluated; canonical points
        self.seen: set[Point] = set()  # evaluated, being evaluated or infeasible; canonical points

    def study(self) -> optuna.Study:
        """Create the study in memory that the sampler reads."""
        import optuna

        return optuna.create_study(directions=["maximize" if sign < 0 else "minimize" for sign in self.signs])

    def limits(self, point: Point) -> Mapping[str, float]:
        """Return a point's constraints."""
        return {} if self.constraints is None else self.constraints(point)

    def feasible(self, point: Point) -> bool:
        """Return whether a point satisfies all constraints."""
        return all(value <= 0 for value in self.limits(point).values())

    def fill(self, number: int) -> Point | None:
        """Draw a feasible point that is new; None when none is found."""

        def new(point: Point) -> bool:
            return self.canonical(point) not in self.seen and self.feasible(point)

        known = [point for point in sorted(self.seen) if self.feasible(point)]
        return unseen(self.sizes, new, known, self.seed, number)

    def ask(self, study: optuna.Study, number: int, point: Point | None) -> tuple[optuna.Trial, Point]:
        """Open a trial at a given point, or at the one the sampler proposes."""
        from optuna.samplers import BaseGASampler

        study.sampler = self.sampler(seed_for(self.seed, "trial", number) % 2**32)
        if point is not None:
            study.enqueue_trial({f"i_{i}": at for i, at in enumerate(point, 1)})
        trial = study.ask()
        if point is not None and isinstance(study.sampler, BaseGASampler):
            # Genetic samplers give a trial its generation, and choose that generation's parents, while they
            # sample it. A fully specified trial is not sampled and would never become a parent. Parents come
            # in another order at the first look than later, so a replayed trial must look just as it did.
            generation = study.sampler.get_trial_generation(study, study.get_trials(deepcopy=False)[-1])
            study.sampler.get_parent_population(study, generation)
        proposed = [trial.suggest_int(f"i_{i}", 0, size - 1) for i, size in enumerate(self.sizes, 1)]
        return trial, tuple(proposed)

    def sampler(self, seed: int) -> BaseSampler:
        """Create the sampler of one proposal."""
        from optuna import samplers

        if isinstance(self.make, samplers.BaseSampler):
            return reseeded(self.make, seed)
        if callable(self.make):
            return self.make(seed)
        if self.make == "tpe":
            return samplers.TPESampler(seed=seed, multivariate=True)
        if self.make == "nsga2":
            # a few hundred trials are several generations of 20, but hardly any of the default 50
            return samplers.NSGAIISampler(seed=seed, population_size=20)
        return samplers.RandomSampler(seed=seed)

    def row(self, number: int, kind: str, point: Point) -> Row:
        """Return a proposal's row, without scores."""
        indices = {f"i_{i}": at for i, at in enumerate(point, 1)}
        return {"number": number, "kind": kind, **indices, "feasible": kind != "infeasible"}

    def scores(self, values: Mapping[str, Any]) -> dict[str, float]:
        """Return the objectives among some values."""
        missing = [name for name in self.names if name not in values]
        if missing:
            raise SettingError("objective", missing[0], f"a score that evaluate returns: {', '.join(values)}")
        return {name: float(values[name]) for name in self.names}

    def tell(self, study: optuna.Study, trial: optuna.Trial, point: Point, row: Mapping[str, Any]) -> None:
        """Close a trial with what its row says."""
        from optuna.trial import TrialState

        for name, value in self.limits(point).items():
            trial.set_constraint(name, value)
        trial.set_user_attr(ROW, kept(row))
        self.seen.add(self.canonical(point))
        if row["kind"] == "infeasible":
            study.tell(trial, [sign * math.inf for sign in self.signs])  # samplers look at the constraints first
            return
        scores = self.scores(row)
        if row["kind"] != "duplicate":
            self.known[self.canonical(point)] = row
        if any(math.isnan(value) for value in scores.values()):
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, list(scores.values()))


def given_point(row: Mapping[str, Any], number: int, sizes: Sequence[int]) -> Point:
    """Check an earlier row and return its point.

    Args:
        row: the row.
        number: its place among the rows, from 0.
        sizes: number of values of each variable.

    Raises:
        SettingError: it is another row, or its point is invalid.
    """
    try:
        given = int(row["number"])
        indices = [int(row[f"i_{i}"]) for i in range(1, len(sizes) + 1)]
    except (KeyError, TypeError, ValueError) as error:
        expected = "rows of a search"
        raise SettingError("done", dict(row), expected, "start a new search") from error
    if given != number:
        expected = f"number {number}: rows of every kind from 0 on, without gaps"
        raise SettingError("done", given, expected, "start a new search")
    return checked_point(indices, sizes, "done")


def checked_point(indices: Sequence[int], sizes: Sequence[int], field: str) -> Point:
    """Check a point that came from outside."""
    point = tuple(int(i) for i in indices)
    if len(point) != len(sizes) or any(not 0 <= i < n for i, n in zip(point, sizes, strict=True)):
        raise SettingError(field, point, f"one index per stage, from 0 to below {list(sizes)}")
    return point


def kept(row: Mapping[str, Any]) -> Row:
    """Return a row without its number and point, in plain values."""
    rest = {name: value for name, value in row.items() if name != "number" and not name.startswith("i_")}
    return {name: value.item() if hasattr(value, "item") else value for name, value in rest.items()}


def reseeded(sampler: BaseSampler, seed: int) -> BaseSampler:
    """Copy a sampler and seed the copy.

    Args:
        sampler: any Optuna sampler; it is not changed.
        seed: the seed of all its generators, those of samplers within it included.

    Returns:
        The copy.
    """
    from optuna.samplers import BaseSampler
    from optuna.samplers._lazy_random_state import LazyRandomState

    copied = deepcopy(sampler)
    todo = [copied]
    seen = set()
    while todo:
        part = todo.pop()
        seen.add(id(part))
        for name, value in list(vars(part).items()):
            if isinstance(value, LazyRandomState):
                setattr(part, name, LazyRandomState(seed))
            # parts of Optuna's samplers: samplers within them, and the strategies of genetic ones
            elif isinstance(value, BaseSampler) or type(value).__module__.startswith("optuna.samplers"):
                if id(value) not in seen and hasattr(value, "__dict__"):
                    todo.append(value)
    return copied
