"""Optuna over index tuples: distinct feasible evaluations that resume bit for bit from their rows.

The study is rebuilt from the rows: every proposal comes from a freshly seeded sampler and depends only on the run's
seed, the trial's number and the trials before it. Several workers share one study in a storage. They propose one at a
time, under a lock, and evaluate in parallel.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import TYPE_CHECKING, Any

from nas_kd.errors import SettingError
from nas_kd.runs.workers import share
from nas_kd.searcher.proposals import Point, Proposals, Row, checked_point, given_point
from nas_kd.searcher.shared import SharedStudy, WorkerGroup, persist

if TYPE_CHECKING:
    import optuna
    from optuna.samplers import BaseSampler

PATIENCE = 20  # proposals in a row without a new one before a random new point is taken
BATCH = 25  # finished trials per write to the journal
STUDY = "nas_kd"  # its name in the journal
POLL = 0.2  # seconds between two looks at the trials of other workers


def refine(
    sizes: Sequence[int] | Mapping[str, int],
    evaluate: Callable[[Point], Mapping[str, float]],
    *,
    constraints: Callable[[Point], Mapping[str, float]] | None = None,
    objective: str | Sequence[str] = "kl",
    maximise: Sequence[str] = (),
    canonical: Callable[[Point], Point] | None = None,
    warm: Iterable[Sequence[int]] = (),
    trials: int,
    seed: int = 0,
    sampler: str | BaseSampler | Callable[[int], BaseSampler] = "tpe",
    done: Sequence[Mapping[str, Any]] = (),
    record: Callable[[Row], None] | None = None,
    journal: str | PathLike[str] | None = None,
    group: WorkerGroup | None = None,
) -> list[Row]:
    """Minimise scores of whole subnets over one index per stage or variable.

    Args:
        sizes: number of choices of each stage; a point is one index per stage, from 0. A mapping gives stages names,
            which the journal or the database has in the place of i_1, i_2 ...
        evaluate: returns the scores of a point by name; called once per distinct feasible point.
        constraints: values by name; a point is feasible when all are 0 or less. None allows every point.
        objective: name of the score to minimise; several names search for their Pareto set.
        maximise: which of them to maximise instead.
        canonical: returns the point that represents all points of the same subnet, which is evaluated once. None:
            no two points are the same subnet.
        warm: points to evaluate first, in order.
        trials: total number of distinct feasible points, warm and earlier ones included.
        seed: the run's seed.
        sampler: ``"tpe"``, ``"nsga2"``, ``"random"``, an Optuna sampler, or a function from a seed to one. A
            sampler is created, or copied with a new seed, for every proposal, so that its only state is the
            finished trials.
        done: all rows of an earlier call with the same arguments, in order; they are not evaluated
            again.
        record: called with each new row, in the order of their numbers, as soon as it and those before it are
            known.
        journal: file for Optuna's journal storage, written in batches; the rows are authoritative.
        group: lets other workers join, instead of ``journal``. As long as none does, the rows are bit-identical to
            those of one process. A lost worker's trials are evaluated again.

    Returns:
        One row per proposal: number, kind, i_1 ... i_S, feasible and, where evaluated, the scores. Kinds are
        ``warm``, ``trial`` (the sampler's), ``random`` (taken because proposals stalled), ``duplicate`` (with
        the known score, or none while another worker evaluates the point) and ``infeasible`` (never
        evaluated). Fewer than ``trials`` evaluations come back only when no further feasible point is found.

    Raises:
        SettingError: a size, point, sampler, count or earlier row is invalid.
    """
    rules = Proposals(sizes, constraints, objective, maximise, canonical, sampler, seed)
    queue = [checked_point(indices, rules.sizes, "warm") for indices in warm]
    if trials < 1:
        raise SettingError("trials", trials, "an integer of at least 1")
    with quiet():
        work = _Work(rules, queue, trials, evaluate, record)
        if group is None:
            work.restore(done)
            for _ in work.run_alone():
                if journal is not None and len(work.rows) % BATCH == 0:
                    persist(work.study, journal, STUDY, rules.labels)
            if journal is not None:
                persist(work.study, journal, STUDY, rules.labels)
        else:
            with group.worker:
                _with_others(work, group, done)
    return work.rows


def _with_others(work: _Work, group: WorkerGroup, done: Sequence[Mapping[str, Any]]) -> None:
    """Work alone, holding the lock, until another worker joins; then together."""
    journal = group.folder / "study.journal"
    worker = group.worker
    with group.leases.lock():
        worker.sweep()  # the lease of a process that was killed here
        work.restore(group.rows() if group.joins else done, known=not group.joins)
        if group.url is None and not group.joins and not group.joined(journal, len(work.rows)):
            for _ in work.run_alone():
                if len(work.rows) % BATCH == 0:
                    persist(work.study, journal, group.study, work.rules.labels)
                if worker.others():
                    break
        shared = group.open(work.study, work.rules.labels)
        if group.log is not None and (others := worker.others()):
            group.log(f"worker {worker.lease} shares the trials with {', '.join(map(str, others))}")
    share(worker, _SharedTrials(work, shared))


class _Work:
    """The rows of one search, and its open trials."""

    def __init__(
        self,
        rules: Proposals,
        queue: Sequence[Point],
        trials: int,
        evaluate: Callable[[Point], Mapping[str, float]],
        record: Callable[[Row], None] | None,
    ) -> None:
        self.rules = rules
        self.queue = queue
        self.trials = trials
        self.evaluate = evaluate
        self.record = record
        self.study = rules.study()
        self.rows: list[Row] = []
        self.open: dict[int, tuple[optuna.Trial, Point]] = {}  # proposals without their scores, by number
        self.recorded = 0

    def restore(self, done: Sequence[Mapping[str, Any]], known: bool = True) -> None:
        """Add earlier rows to the study as finished trials; ``known`` ones are recorded already."""
        for number, row in enumerate(done):
            self.replay(number, row)
        self.recorded = len(self.rows) if known else 0

    def replay(self, number: int, row: Mapping[str, Any], finished: bool = True) -> None:
        trial, point = self.rules.ask(self.study, number, given_point(row, number, self.rules.sizes))
        self.rows.append(dict(row))
        self.open[number] = trial, point
        self.rules.seen.add(self.rules.canonical(point))
        if finished:
            self.close(number, row)

    def close(self, number: int, row: Mapping[str, Any]) -> None:
        trial, point = self.open.pop(number)
        self.rules.tell(self.study, trial, point, row)
        self.rows[number] = dict(row)

    def note(self) -> None:
        """Record the rows whose predecessors are all known."""
        while self.recorded < len(self.rows) and self.recorded not in self.open:
            if self.record is not None:
                self.record(self.rows[self.recorded])
            self.recorded += 1

    def propose(self) -> Row | None:
        """Propose a new point, or close one at once that needs no evaluation; None when there is none, or no need."""
        rules = self.rules
        number = len(self.rows)
        if len(rules.known) + len(self.open) >= self.trials:
            return None
        kind = "warm"
        point = next((p for p in self.queue if rules.canonical(p) not in rules.seen), None)
        if point is None and _stalled(self.rows) < PATIENCE:
            kind = "trial"
        elif point is None:
            kind = "random"
            point = rules.fill(number)
            if point is None:
                return None
        trial, point = rules.ask(self.study, number, point)
        at = rules.canonical(point)
        if not rules.feasible(point):
            row = rules.row(number, "infeasible", point)
        elif at in rules.known:
            row = rules.row(number, "duplicate", point) | rules.scores(rules.known[at])
        elif at in rules.seen:  # another worker evaluates it
            row = rules.row(number, "duplicate", point) | dict.fromkeys(rules.names, math.nan)
        else:
            row = rules.row(number, kind, point)
        self.rows.append(row)
        self.open[number] = trial, point
        rules.seen.add(at)
        if row["kind"] in ("infeasible", "duplicate"):
            self.close(number, row)
        return row

    def run_alone(self) -> Iterator[Row]:
        """Evaluate one proposal after another, and yield each row when it is known."""
        while (row := self.propose()) is not None:
            number = row["number"]
            if number in self.open:
                self.close(number, row | dict(self.evaluate(self.open[number][1])))
            self.note()
            yield self.rows[number]


class _SharedTrials:
    """Trials that several workers evaluate: each is a unit of their work."""

    def __init__(self, work: _Work, shared: SharedStudy) -> None:
        self.work = work
        self.shared = shared
        self.settled = False  # the last proposal needed no evaluation

    def free(self) -> Iterator[str]:
        """Yield the trials that are open, which a lost worker may have left, and then a new one."""
        self._sync()
        self.settled = False
        yield from map(_unit, list(self.work.open))
        if (row := self.work.propose()) is None:
            return
        number = row["number"]
        self.shared.add(self.work.study.get_trials()[number], row)
        self.settled = number not in self.work.open
        if self.settled:
            self.work.note()
        else:
            yield _unit(number)

    def wait(self) -> float | None:
        """Propose again at once, or when other workers have finished a trial; None when all are known."""
        if self.settled:
            return 0.0
        return POLL if self.work.open else None

    def begin(self, unit: str) -> None:
        """Do nothing: no preparation is needed."""

    def do(self, unit: str) -> Row:
        """Evaluate a proposal."""
        number = _number(unit)
        return self.work.rows[number] | dict(self.work.evaluate(self.work.open[number][1]))

    def record(self, unit: str, result: Row) -> None:
        """Close a trial, unless another worker has done so."""
        self._sync()
        number = _number(unit)
        if number in self.work.open:
            self.work.close(number, result)
            self.shared.finish(number, self.work.study.get_trials(deepcopy=False)[number].values, result)
            self.work.note()

    def _sync(self) -> None:
        """Add what other workers have proposed and finished."""
        work = self.work
        for number, trial in enumerate(self.shared.trials()):
            if number >= len(work.rows):
                work.replay(number, self.shared.row(number, trial), trial.state.is_finished())
            elif number in work.open and trial.state.is_finished():
                work.close(number, self.shared.row(number, trial))
        work.note()


def _unit(number: int) -> str:
    return f"trial {number}"


def _number(unit: str) -> int:
    return int(unit.removeprefix("trial "))


def _stalled(rows: Sequence[Row]) -> int:
    """Count the proposals since the last new one."""
    count = 0
    for row in reversed(rows):
        if row["kind"] not in ("infeasible", "duplicate"):
            break
        count += 1
    return count


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress Optuna's line per trial and its warnings about experimental arguments."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
