"""The study that the workers of one search share: a journal file on one machine, a database for many."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_kd.config.reading import TABLE, check_file
from nas_kd.errors import SettingError
from nas_kd.runs.files import on_disk
from nas_kd.runs.leases import HEARTBEAT, PATIENCE, FileLeases, LeaseStore
from nas_kd.runs.links import not_through
from nas_kd.runs.workers import Worker
from nas_kd.searcher.lease_table import TableLeases, database_errors, engine_settings, with_driver
from nas_kd.searcher.proposals import ROW, Row, kept

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

FACTS = "nas_kd"  # user attribute of a study: the settings that determine the search


@dataclass(frozen=True)
class WorkerGroup:
    """How the workers of one search share its trials.

    Args:
        folder: holds study.journal, and leases for the workers of this machine.
        url: SQLAlchemy's URL of a database for workers on many machines; None is the journal.
        study: name of the study; unique to the search in a database.
        facts: settings that determine the search; stored in the study to explain why a worker cannot join.
        joins: this process joins a search that another one started.
        rows: for a process that joins, reads the rows of the one that started.
        log: called with a line about workers that join or are lost.
        heartbeat: seconds between two renewals of a lease.
        patience: seconds without one after which a worker is lost.
    """

    folder: Path
    url: str | None = None
    study: str = "nas_kd"
    facts: Mapping[str, Any] = field(default_factory=dict)
    joins: bool = False
    rows: Callable[[], Sequence[Mapping[str, Any]]] = list
    log: Callable[[str], None] | None = None
    heartbeat: float = HEARTBEAT
    patience: float = PATIENCE

    @cached_property
    def leases(self) -> LeaseStore:
        """The leases stored with the study."""
        return TableLeases(self.url, self.study) if self.url else FileLeases(self.folder / "leases")

    @cached_property
    def worker(self) -> Worker:
        """This process among the others."""
        return Worker(self.leases, self.heartbeat, self.patience, self.log)

    def joined(self, journal: Path, trials: int) -> bool:
        """Return whether other workers share the study, or it has more trials than the rows; the lock is held.

        Args:
            trials: number of rows that are known.
        """
        return bool(self.worker.others()) or len(journal_trials(journal, self.study)) > trials

    def open(self, mine: optuna.Study, labels: Sequence[str]) -> SharedStudy:
        """Open the study under the lock, and add the trials of the rows that it lacks.

        Args:
            mine: the study in memory.
            labels: what its variables are called in the shared one.

        Raises:
            SettingError: the database cannot be reached or written to.
        """
        if self.url is None:
            journal = self.folder / "study.journal"
            return SharedStudy(persist(mine, journal, self.study, labels), labels, journal)
        with database_errors(self.url):
            study = _in_database(self.url, self.study, mine, self.facts, create=not self.joins)
            for trial in mine.get_trials(deepcopy=False)[len(study.get_trials(deepcopy=False)) :]:
                study.add_trial(labelled(trial, labels))
        return SharedStudy(study, labels, url=self.url)


class SharedStudy:
    """Trials that several workers add and finish; every call is made under the lock of their leases.

    Args:
        study: a study in a storage that all workers can reach.
        labels: what its variables are called there.
        journal: its file, when it is in one.
        url: the URL of its database, when it is in one.

    Raises:
        SettingError: in all methods, when the disk is full or the database connection is lost.
    """

    def __init__(self, study: optuna.Study, labels: Sequence[str], journal: Path | None = None, url: str = "") -> None:
        self.study = study
        self.labels = labels
        self.journal = journal
        self.url = url

    def _storage_errors(self) -> AbstractContextManager[None]:
        return database_errors(self.url) if self.journal is None else on_disk(self.journal)

    def trials(self) -> list[FrozenTrial]:
        """Return all trials by number."""
        if self.journal is not None:
            _truncate_partial_line(self.journal)
        with self._storage_errors():
            return self.study.get_trials(deepcopy=False)

    def add(self, trial: FrozenTrial, row: Mapping[str, Any]) -> None:
        """Add a trial as it stands, being evaluated or finished.

        Args:
            trial: the trial of the study in memory.
            row: its row.
        """
        trial.set_user_attr(ROW, kept(row))
        with self._storage_errors():
            self.study.add_trial(labelled(trial, self.labels))

    def row(self, number: int, trial: FrozenTrial) -> Row:
        """Return a stored trial's row; see `row_of`."""
        return row_of(number, trial, self.labels)

    def finish(self, number: int, values: list[float] | None, row: Mapping[str, Any]) -> None:
        """Close a trial.

        Args:
            number: its number.
            values: its objectives; None where one is not a number.
            row: its row.
        """
        from optuna.trial import TrialState

        storage = self.study._storage
        trial = self.trials()[number]
        state = TrialState.FAIL if values is None else TrialState.COMPLETE
        with self._storage_errors():
            storage.set_trial_user_attr(trial._trial_id, ROW, kept(row))  # first, for the state ends all changes
            storage.set_trial_state_values(trial._trial_id, state, values)


def labelled(trial: FrozenTrial, labels: Sequence[str]) -> FrozenTrial:
    """Return a trial whose variables i_1, i_2 ... have names that a person reads; samplers go by the first ones."""
    shown = {f"i_{number}": label for number, label in enumerate(labels, 1)}
    found = copy(trial)
    found.params = {shown.get(name, name): value for name, value in trial.params.items()}
    found.distributions = {shown.get(name, name): kind for name, kind in trial.distributions.items()}
    return found


def row_of(number: int, trial: FrozenTrial, labels: Sequence[str]) -> Row:
    """Return a stored trial's row.

    Args:
        number: of the trial.
        trial: of a shared study.
        labels: what variables are called there; a study from before they had names has i_1, i_2 ...

    Raises:
        SettingError: another program created it.
    """
    row = trial.user_attrs.get(ROW)
    if not isinstance(row, Mapping) or not isinstance(row.get("kind"), str):
        expected = "a study to which only nas_kd adds trials"
        raise SettingError("search.storage", f"trial {number}", expected, "delete the study, or use another storage")
    known = {label: f"i_{place}" for place, label in enumerate(labels, 1)}
    return {"number": number, **{known.get(name, name): value for name, value in trial.params.items()}, **row}


def persist(study: optuna.Study, journal: str | PathLike[str], name: str, labels: Sequence[str] = ()) -> optuna.Study:
    """Write the finished trials that a journal file lacks.

    Args:
        study: the study in memory.
        journal: path of the file.
        name: name of the study in it.
        labels: what its variables are called there; none keeps their names.

    Returns:
        The study in the file.

    Raises:
        SettingError: the disk is full or read-only.
    """
    import optuna

    def opened() -> optuna.Study:
        storage = _journal(path)
        return optuna.create_study(study_name=name, storage=storage, directions=study.directions, load_if_exists=True)

    path = Path(journal)
    with on_disk(path):
        _truncate_partial_line(path)
        try:
            found = opened()
        except OSError:
            raise
        except Exception:  # not a journal, or an edited one; the rows have everything, so write a new one
            path.replace(path.with_name(path.name + ".damaged"))
            found = opened()
        lacking = study.get_trials(deepcopy=False)[len(found.get_trials(deepcopy=False)) :]
        found.add_trials([labelled(trial, labels) for trial in lacking])
    return found


def journal_trials(journal: Path, name: str) -> list[FrozenTrial]:
    """Return the trials in a journal file; none where there is no such study, or it cannot be read.

    Args:
        journal: path of the file.
        name: name of the study in it.
    """
    import optuna

    if not journal.is_file():
        return []
    _truncate_partial_line(journal)
    try:
        return optuna.load_study(study_name=name, storage=_journal(journal)).get_trials(deepcopy=False)
    except OSError:
        raise
    except Exception:  # whatever Optuna raises at lines that it did not write
        return []


def _journal(path: Path) -> optuna.storages.JournalStorage:
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage

    class NoLock(JournalFileOpenLock):
        """Every call already holds our lock; Optuna's would outlive a killed process by half a minute."""

        def acquire(self) -> bool:
            return True

        def release(self) -> None:
            pass

    os.close(not_through(path, os.O_RDWR | os.O_CREAT))  # Optuna opens it by its name
    return JournalStorage(JournalFileBackend(str(path), lock_obj=NoLock(str(path))))


def _truncate_partial_line(path: Path) -> None:
    """Remove the partial last line that a kill while writing leaves."""
    hint = f"delete {path}: it is written again from trials.csv"
    if not path.exists() or not (size := check_file(path, TABLE, hint=hint)):
        return
    with on_disk(path), open(path, "rb+", opener=not_through) as file:
        file.seek(size - 1)
        if file.read(1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
            file.flush()
            os.fsync(file.fileno())


def _in_database(url: str, name: str, mine: optuna.Study, facts: Mapping[str, Any], create: bool) -> optuna.Study:
    """Open the study in a database; only the process that starts the search creates it."""
    import optuna

    storage = optuna.storages.RDBStorage(with_driver(url), engine_kwargs=engine_settings(url))
    names = optuna.get_all_study_names(storage)
    if name not in names and not create:
        raise _missing_study(storage, name, facts)
    study = optuna.create_study(study_name=name, storage=storage, directions=mine.directions, load_if_exists=True)
    if FACTS not in study.user_attrs:
        study.set_user_attr(FACTS, dict(facts))
    return study


def _missing_study(storage: optuna.storages.RDBStorage, name: str, facts: Mapping[str, Any]) -> SettingError:
    """Return the error of a worker whose search is not in the database, naming the settings that differ."""
    others: list[list[str]] = []
    for study in storage.get_all_studies():
        if (found := study.user_attrs.get(FACTS)) is not None:
            others.append([key for key in {**found, **facts} if found.get(key) != facts.get(key)])
    expected = "a running search with the same supernet, tables and settings"
    if not others:
        return SettingError("search.storage", name, expected, "start `nas-kd search` without --worker first")
    differs = ", ".join(sorted(others, key=len)[0])
    hint = f"copy the other host's run folder and use its settings: the closest search there differs in {differs}"
    return SettingError("search.storage", name, expected, hint)
