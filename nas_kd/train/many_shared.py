"""Trainings that any number of processes share, on all machines that see the run: none is lost, none counts twice."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from nas_kd.runs.files import clear_parts
from nas_kd.runs.leases import FileLeases
from nas_kd.runs.lock import held
from nas_kd.runs.progress import Progress
from nas_kd.runs.results import ResultTable
from nas_kd.runs.run import Run
from nas_kd.runs.workers import Worker, share
from nas_kd.space import Arch
from nas_kd.train.many import Results
from nas_kd.train.moving import MovingStage, MovingStages

PAUSE = 0.5  # seconds between two looks at what other workers have in hand
LOOK = 1.0  # seconds between two looks at what is recorded, for the progress


class MovingTraining(Protocol):
    """One training of an arch from a seed, whose checkpoints may move from worker to worker."""

    @property
    def arch(self) -> Arch:
        """The arch."""

    @property
    def seed(self) -> int:
        """The seed."""

    @property
    def inputs(self) -> Mapping[str, object]:
        """Everything else that determines the result."""

    def train_in(self, stage: MovingStage) -> Results:
        """Train, or go on from the checkpoint in a folder."""


@dataclass(frozen=True)
class SharedTrainings:
    """Trainings whose results are the rows of one table; `train` does what no other process does, until all are there.

    Who trains what is in the leases of the folder: the training of a worker that is lost, or that was asked to stop,
    is taken up by another from its last checkpoint.

    Args:
        name: what the rows are, for messages.
        trainings: the trainings, in the order of their turns.
        table: the rows.
        folder: the folder in it that holds the leases and checkpoints.
        writing: a lock that those hold who write other files into the folder.
    """

    name: str
    trainings: Sequence[MovingTraining]
    table: ResultTable
    run: Run
    folder: str
    writing: Path

    def train(self) -> Results:
        """Train what no other process has trained or is training, and wait for the rest.

        Returns:
            ``trained``, the number of trainings that this process did.
        """
        folder = self.run.path / self.folder
        with Worker(FileLeases(folder / "leases"), log=self.run.log_message) as worker:
            stages = MovingStages(self.run, self.folder, worker.lease.worker)
            with worker.store.lock(), self.table.locked(), held(self.writing, wait=False) as alone:
                if alone and not worker.others():
                    clear_parts(list(folder.rglob(".*")))  # of whoever was killed; the run's lock leaves them to us
            units = _Units(self, stages, worker.lease.worker)
            share(worker, units)
            with worker.store.lock():
                stages.clear(self.table.done())
        return {"trained": units.recorded}

    def recorded(self) -> int:
        """Count the trainings whose rows are there."""
        return len({(each.arch.key, each.seed) for each in self.trainings} & self.table.done())

    @contextmanager
    def watched(self, progress: Progress) -> Iterator[None]:
        """Count the rows that any process records meanwhile."""
        ended = threading.Event()

        def look() -> None:
            if (new := self.recorded() - progress.done) > 0:
                progress.advance(new)

        def watch() -> None:
            while not ended.wait(LOOK):
                with suppress(Exception):  # a full disk is the error of whoever records
                    look()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
        look()


class _Units:
    """The trainings as units of work.

    Args:
        shared: the trainings.
        stages: their folders.
        worker: this worker's id.
    """

    def __init__(self, shared: SharedTrainings, stages: MovingStages, worker: str) -> None:
        self.shared = shared
        self.stages = stages
        self.worker = worker
        self.wanted = {f"{each.arch.key} seed {each.seed}": each for each in shared.trainings}
        self.left: list[str] = []
        self.stage: MovingStage | None = None
        self.recorded = 0

    def free(self) -> list[str]:
        """List the trainings without a row."""
        done = self.shared.table.done()
        self.left = [unit for unit, each in self.wanted.items() if (each.arch.key, each.seed) not in done]
        return self.left

    def wait(self) -> float | None:
        """Look again while others train."""
        return PAUSE if self.left else None

    def begin(self, unit: str) -> None:
        """Open the training's folder, with the checkpoints that another worker left."""
        training = self.wanted[unit]
        self.stage = self.stages.take(training.arch.key, training.seed, training.inputs)

    def do(self, unit: str) -> Results | None:
        """Train, or give up what another worker has taken over."""
        stage = self._begun
        try:
            return self.wanted[unit].train_in(stage)
        except FileNotFoundError:
            if not stage.taken:
                raise
            return None

    def record(self, unit: str, result: Results) -> None:
        """Write the row, and delete the checkpoints."""
        key, seed = self.wanted[unit].arch.key, self.wanted[unit].seed
        shared = self.shared
        done = shared.table.done()
        if (key, seed) in done:
            return
        row: dict[str, Any] = {"key": key, "seed": seed}
        shared.table.append(row | result)
        self._begun.end()
        self.recorded += 1
        number = f"{len(done) + 1}/{len(self.wanted)}"
        shared.run.log_message(
            f"{shared.name} {number}: {unit}, accuracy {100 * result['accuracy']:.2f} %, by {self.worker}"
        )

    @property
    def _begun(self) -> MovingStage:
        if self.stage is None:
            raise RuntimeError("no training has begun")
        return self.stage
