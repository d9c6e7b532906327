"""Optuna over index tuples: distinct feasible evaluations that resume bit for bit from their rows.

The rows are the truth and the study is rebuilt from them: every proposal comes from a freshly seeded sampler
and depends on the run's seed, the trial's number and the trials before it, on nothing else. With several workers
the truth is one study that all reach. They decide one at a time, under a lock, and evaluate at once.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import TYPE_CHECKING, Any

from nas_kd.errors import SettingError
from nas_kd.searcher.proposals import Point, Proposals, Row
from nas_kd.searcher.shared import SharedStudy, Team, persist, row_of

if TYPE_CHECKING:
    import optuna
    from optuna.samplers import BaseSampler

PATIENCE = 20  # proposals in a row that bring nothing new before a random new point is taken
BATCH = 25  # finished trials a write to the journal
PAUSE = 0.2  # seconds between two looks at what other workers have in hand


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
    sampler: str | BaseSampler | Callable[[int], BaseSampler] = "tpe",
    done: Sequence[Mapping[str, Any]] = (),
    record: Callable[[Row], None] | None = None,
    journal: str | PathLike[str] | None = None,
    study_name: str = "nas_kd",
    team: Team | None = None,
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
        sampler: ``"tpe"``, ``"nsga2"``, ``"random"``, an Optuna sampler, or a function from a seed to one. A
            sampler is made anew, or copied with a new seed, for every proposal, so that it keeps no state but the
            finished trials.
        done: rows of an earlier call with the same arguments, all from the first on; they are not evaluated
            again.
        record: called with each new row, in the order of their numbers, as soon as it and those before it are
            known.
        journal: file for Optuna's journal storage, written in batches; the rows stay the truth.
        study_name: name of the study in the journal; put the hash of space and setting into it.
        team: where other workers may join, in the place of ``journal`` and ``study_name``. As long as nobody
            does, the rows are those of one process to the bit. A lost worker's trials are evaluated again.

    Returns:
        One row a proposal: number, kind, i_1 ... i_S, feasible and, where evaluated, the scores. Kinds are
        ``warm``, ``trial`` (the sampler's), ``random`` (taken because proposals stalled), ``duplicate`` (told
        the known score again, or none while another worker has the point in hand) and ``infeasible`` (never
        evaluated). Fewer than ``trials`` evaluations come back only when no further feasible point is found.

    Raises:
        SettingError: a size, point, sampler, count or earlier row is not usable.
    """
    rules = Proposals(sizes, constraints, objective, maximise, canonical, sampler, seed)
    queue = [rules.point(indices, "warm") for indices in warm]
    if trials < 1:
        raise SettingError("trials", trials, "an integer of at least 1")
    with _quiet():
        work = _Work(rules, queue, trials, evaluate, record)
        if team is None:
            work.take_up(done)
            for _ in work.alone():
                if journal is not None and len(work.rows) % BATCH == 0:
                    persist(work.study, journal, study_name)
            if journal is not None:
                persist(work.study, journal, study_name)
        else:
            with team.seat:
                _with_others(work, team, done)
    return work.rows


def _with_others(work: _Work, team: Team, done: Sequence[Mapping[str, Any]]) -> None:
    """Work alone, holding the lock, until somebody joins; then together."""
    journal = team.folder / "study.journal"
    with team.leases.lock():
        team.seat.sweep()  # the row of a process that was killed here
        work.take_up(team.rows() if team.joins else done, known=not team.joins)
        if team.url is None and not team.joins and not team.joined(journal, len(work.rows)):
            for _ in work.alone():
                if len(work.rows) % BATCH == 0:
                    persist(work.study, journal, team.study)
                if team.seat.others():
                    break
        shared = team.open(work.study)
        if team.say is not None and (others := team.seat.others()):
            team.say(f"worker {team.seat.lease} shares the trials with {', '.join(map(str, others))}")
    while work.step(shared, team):
        pass


class _Work:
    """The rows of one search, and what is in hand."""

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

    def take_up(self, done: Sequence[Mapping[str, Any]], known: bool = True) -> None:
        """Put earlier rows into the study as if they had just been told; ``known`` ones are recorded already."""
        for number, row in enumerate(done):
            self._replay(number, row)
        self.recorded = len(self.rows) if known else 0

    def _replay(self, number: int, row: Mapping[str, Any], finished: bool = True) -> None:
        trial, point = self.rules.ask(self.study, number, self.rules.given(number, row))
        self.rows.append(dict(row))
        self.open[number] = trial, point
        self.rules.seen.add(self.rules.canonical(point))
        if finished:
            self._close(number, row)

    def _close(self, number: int, row: Mapping[str, Any]) -> None:
        trial, point = self.open.pop(number)
        self.rules.tell(self.study, trial, point, row)
        self.rows[number] = dict(row)

    def _note(self) -> None:
        """Record the rows whose predecessors are all known."""
        while self.recorded < len(self.rows) and self.recorded not in self.open:
            if self.record is not None:
                self.record(self.rows[self.recorded])
            self.recorded += 1

    def _next(self) -> Row | None:
        """Propose a point that nobody has, or tell at once what came of it; None when there is none, or no need."""
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
        elif at in rules.seen:  # in another's hands
            row = rules.row(number, "duplicate", point) | dict.fromkeys(rules.names, math.nan)
        else:
            row = rules.row(number, kind, point)
        self.rows.append(row)
        self.open[number] = trial, point
        rules.seen.add(at)
        if row["kind"] in ("infeasible", "duplicate"):
            self._close(number, row)
        return row

    def alone(self) -> Iterator[Row]:
        """Evaluate one proposal after another, and yield each row when it is known."""
        while (row := self._next()) is not None:
            number = row["number"]
            if number in self.open:
                self._close(number, row | dict(self.evaluate(self.open[number][1])))
            self._note()
            yield self.rows[number]

    def step(self, shared: SharedStudy, team: Team) -> bool:
        """Do one proposal, or one that a lost worker left; False when all are done."""
        with team.leases.lock():
            self._sync(shared)
            busy = {row.job for row in team.seat.others()} if self.open else set()
            left = (number for number in self.open if _job(number) not in busy)
            number = next((number for number in left if team.seat.take(_job(number))), None)
            if number is None and (row := self._next()) is not None:
                number = row["number"]
                shared.add(self.study.get_trials()[number], row)
                if number not in self.open:
                    self._note()
                    return True
                team.seat.take(_job(number))
        if number is None:
            time.sleep(PAUSE)
            return bool(self.open)
        found = self.rows[number] | dict(self.evaluate(self.open[number][1]))
        with team.leases.lock():
            self._sync(shared)
            if number in self.open and team.seat.holds(_job(number)):  # else we were given up, and another does it
                self._close(number, found)
                shared.finish(number, self.study.get_trials(deepcopy=False)[number].values, found)
                self._note()
            team.seat.free()
        return True

    def _sync(self, shared: SharedStudy) -> None:
        """Take over what other workers have proposed and found."""
        for number, trial in enumerate(shared.trials()):
            if number >= len(self.rows):
                self._replay(number, row_of(number, trial), trial.state.is_finished())
            elif number in self.open and trial.state.is_finished():
                self._close(number, row_of(number, trial))
        self._note()


def _job(number: int) -> str:
    return f"trial {number}"


def _stalled(rows: Sequence[Row]) -> int:
    """Count the proposals since the last new one."""
    count = 0
    for row in reversed(rows):
        if row["kind"] not in ("infeasible", "duplicate"):
            break
        count += 1
    return count


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
