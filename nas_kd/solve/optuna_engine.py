"""Optuna over index tuples: distinct feasible evaluations that resume bit for bit from their rows.

The rows are the truth and the study is rebuilt from them: every proposal comes from a freshly seeded sampler
and depends on the run's seed, the trial's number and the trials before it, on nothing else.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_kd.errors import SettingError, nearest
from nas_kd.files import on_disk
from nas_kd.runtime import seed_for
from nas_kd.solve.fill import unseen

if TYPE_CHECKING:
    import optuna
    from optuna.samplers import BaseSampler

Point = tuple[int, ...]
Row = dict[str, Any]
SAMPLERS = ("tpe", "nsga2", "random")
PATIENCE = 20  # proposals in a row that bring nothing new before a random new point is taken
BATCH = 25  # finished trials a write to the journal


def refine(
    sizes: Sequence[int],
    evaluate: Callable[[Point], Mapping[str, float]],
    *,
    constraints: Callable[[Point], Mapping[str, float]] | None = None,
    objective: str | Sequence[str] = "kl",
    maximise: Sequence[str] = (),
    canonical: Callable[[Point], Point] | None = None,
    warm: Iterable[Sequence[int]] = (),
    trials: int,
    seed: int = 0,
    sampler: str | Callable[[int], BaseSampler] = "tpe",
    done: Sequence[Mapping[str, Any]] = (),
    record: Callable[[Row], None] | None = None,
    journal: str | PathLike[str] | None = None,
    study_name: str = "nas_kd",
) -> list[Row]:
    """Minimise scores of whole subnets over one index a stage, or a gene.

    Args:
        sizes: number of choices of each stage; a point is one index a stage, from 0.
        evaluate: the scores of a point by name; called once a distinct feasible point.
        constraints: values by name; a point is feasible when all are 0 or less. None allows every point.
        objective: name of the score to minimise; several names search for their Pareto set.
        maximise: which of them are to be large instead.
        canonical: gives the one point that stands for all points of the same subnet, where a subnet has
            several; those are then one point that is evaluated once. None: every point is its own.
        warm: points to evaluate first, in order.
        trials: how many distinct feasible points are wanted in all, warm and earlier ones included.
        seed: the run's seed.
        sampler: ``"tpe"``, ``"nsga2"``, ``"random"``, or a function from a seed to an Optuna sampler. A
            sampler is made anew for every proposal, so it may keep no state but the finished trials.
        done: rows of an earlier call with the same arguments, all from the first on; they are not evaluated
            again.
        record: called with each new row as soon as it is known.
        journal: file for Optuna's journal storage, written in batches; the rows stay the truth.
        study_name: name of the study in the journal; put the hash of space and setting into it.

    Returns:
        One row a proposal: number, kind, i_1 ... i_S, feasible and, where evaluated, the scores. Kinds are
        ``warm``, ``trial`` (the sampler's), ``random`` (taken because proposals stalled), ``duplicate`` (told
        the known score again) and ``infeasible`` (never evaluated). Fewer than ``trials`` evaluations come
        back only when no further feasible point is found.

    Raises:
        SettingError: a size, point, sampler, count or earlier row is not usable.
    """
    search = _Search(sizes, constraints, objective, maximise, canonical, sampler, seed)
    queue = [search.point(indices, "warm") for indices in warm]
    if trials < 1:
        raise SettingError("trials", trials, "an integer of at least 1")
    rows: list[Row] = [dict(row) for row in done]
    with _quiet():
        study = search.study()
        for number, row in enumerate(rows):
            search.replay(study, number, row)
        stall = _stalled(rows)
        while len(search.known) < trials:
            kind, point = "warm", next((p for p in queue if search.canonical(p) not in search.seen), None)
            if point is None and stall < PATIENCE:
                kind = "trial"
            elif point is None:
                kind, point = "random", search.fill(len(rows))
                if point is None:
                    break
            trial, point = search.ask(study, len(rows), point)
            if not search.feasible(point):
                row = search.row(len(rows), "infeasible", point)
            elif (known := search.known.get(search.canonical(point))) is not None:
                row = search.row(len(rows), "duplicate", point) | search.scores(known)
            else:
                row = search.row(len(rows), kind, point) | dict(evaluate(point))
            search.tell(study, trial, point, row)
            rows.append(row)
            if record is not None:
                record(row)
            stall = stall + 1 if row["kind"] in ("infeasible", "duplicate") else 0
            if journal is not None and len(rows) % BATCH == 0:
                persist(study, journal, study_name)
        if journal is not None:
            persist(study, journal, study_name)
    return rows


class _Search:
    """What stays the same during one call, and the points seen so far."""

    def __init__(
        self,
        sizes: Sequence[int],
        constraints: Callable[[Point], Mapping[str, float]] | None,
        objective: str | Sequence[str],
        maximise: Sequence[str],
        canonical: Callable[[Point], Point] | None,
        sampler: str | Callable[[int], BaseSampler],
        seed: int,
    ) -> None:
        if not sizes or min(sizes) < 1:
            raise SettingError("sizes", list(sizes), "one integer of at least 1 a stage")
        if isinstance(sampler, str) and sampler not in SAMPLERS:
            raise SettingError("sampler", sampler, ", ".join(SAMPLERS), nearest(sampler, SAMPLERS))
        self.names = [objective] if isinstance(objective, str) else list(objective)
        if unknown := [name for name in maximise if name not in self.names]:
            raise SettingError("maximise", unknown, f"some of the objectives {', '.join(self.names)}")
        self.signs = [-1 if name in maximise else 1 for name in self.names]
        self.sizes, self.constraints, self.make, self.seed = list(sizes), constraints, sampler, seed
        self.canonical = canonical or (lambda point: point)
        self.known: dict[Point, Mapping[str, Any]] = {}  # evaluated; canonical points
        self.seen: set[Point] = set()  # evaluated or infeasible; canonical points

    def study(self) -> optuna.Study:
        import optuna

        return optuna.create_study(directions=["maximize" if sign < 0 else "minimize" for sign in self.signs])

    def point(self, indices: Sequence[int], field: str) -> Point:
        """Check a point that came from outside."""
        point = tuple(int(i) for i in indices)
        fits = len(point) == len(self.sizes)
        if not fits or any(not 0 <= i < n for i, n in zip(point, self.sizes, strict=True)):
            raise SettingError(field, point, f"one index a stage, from 0 to below {self.sizes}")
        return point

    def limits(self, point: Point) -> Mapping[str, float]:
        return {} if self.constraints is None else self.constraints(point)

    def feasible(self, point: Point) -> bool:
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
        """Make the sampler of one proposal."""
        from optuna import samplers

        if callable(self.make):
            return self.make(seed)
        if self.make == "tpe":
            return samplers.TPESampler(seed=seed, multivariate=True)
        if self.make == "nsga2":
            # a few hundred trials are several generations of 20, but hardly any of the default 50
            return samplers.NSGAIISampler(seed=seed, population_size=20)
        return samplers.RandomSampler(seed=seed)

    def row(self, number: int, kind: str, point: Point) -> Row:
        indices = {f"i_{i}": at for i, at in enumerate(point, 1)}
        return {"number": number, "kind": kind, **indices, "feasible": kind != "infeasible"}

    def scores(self, values: Mapping[str, Any]) -> dict[str, float]:
        missing = [name for name in self.names if name not in values]
        if missing:
            raise SettingError("objective", missing[0], f"a score that evaluate returns: {', '.join(values)}")
        return {name: float(values[name]) for name in self.names}

    def tell(self, study: optuna.Study, trial: optuna.Trial, point: Point, row: Mapping[str, Any]) -> None:
        """Close a trial with what its row says."""
        from optuna.trial import TrialState

        for name, value in self.limits(point).items():
            trial.set_constraint(name, value)
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

    def replay(self, study: optuna.Study, number: int, row: Mapping[str, Any]) -> None:
        """Put an earlier row into the study as if it had just been told."""
        try:
            given = int(row["number"])
            indices = [int(row[f"i_{i}"]) for i in range(1, len(self.sizes) + 1)]
        except (KeyError, TypeError, ValueError) as error:
            legal = "rows that refine returned"
            raise SettingError("done", dict(row), legal, "start the search afresh") from error
        if given != number:
            legal = f"number {number}: rows of every kind from 0 on, none left out"
            raise SettingError("done", given, legal, "start the search afresh")
        trial, point = self.ask(study, number, self.point(indices, "done"))
        self.tell(study, trial, point, row)


def _stalled(rows: Sequence[Row]) -> int:
    """Count the proposals since the last new one."""
    count = 0
    for row in reversed(rows):
        if row["kind"] not in ("infeasible", "duplicate"):
            break
        count += 1
    return count


def persist(study: optuna.Study, journal: str | PathLike[str], name: str) -> None:
    """Write the finished trials that a journal file lacks.

    Args:
        study: the study in memory.
        journal: path of the file.
        name: name of the study in it.

    Raises:
        SettingError: the disk is full or read-only.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    def opened() -> optuna.Study:
        storage = JournalStorage(JournalFileBackend(str(journal)))
        return optuna.create_study(
            study_name=name, storage=storage, directions=study.directions, load_if_exists=True
        )

    path = Path(journal)
    with on_disk(path):
        if path.is_file() and not (text := path.read_bytes()).endswith(b"\n"):
            path.write_bytes(text[: text.rfind(b"\n") + 1])  # a kill while writing leaves half a line
        try:
            kept = opened()
        except (ValueError, KeyError):  # not a journal; the rows have everything, so write it anew
            path.replace(path.with_name(path.name + ".damaged"))
            kept = opened()
        kept.add_trials(study.get_trials(deepcopy=False)[len(kept.get_trials(deepcopy=False)) :])


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna from a line a trial and from notes on experimental arguments."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
