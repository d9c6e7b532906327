"""Trainings shared by any number of processes and machines with access to the run: none is lost or done twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from nas_kd.config.measures import measure_named
from nas_kd.runs.files import clear_parts
from nas_kd.runs.leases import FileLeases
from nas_kd.runs.lock import held
from nas_kd.runs.progress import Progress
from nas_kd.runs.results import ResultTable
from nas_kd.runs.run import Run
from nas_kd.runs.workers import Worker, share
from nas_kd.runtime.repeated import repeated
from nas_kd.space import Arch
from nas_kd.train.many import Results
from nas_kd.train.moving import MovingStage, MovingStages

PAUSE = 0.5  # seconds between polls while other workers hold all remaining trainings
POLL = 1.0  # seconds between polls of the recorded rows, for the progress


class MovingTraining(Protocol):
    """One training of an arch from a seed, whose checkpoints other workers can take over."""

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
        """Train, or resume from the checkpoint in a folder."""


@dataclass(frozen=True)
class SharedTrainings:
    """Trainings with one table of results; `train` shares them with other processes until all are done.

    Workers claim trainings with leases in the folder: the training of a lost or stopped worker is resumed by another
    from its last checkpoint.

    Args:
        name: for messages.
        trainings: in the order in which to train them.
        folder: folder in the run with the leases and checkpoints.
        writing: lock held by processes that write other files into the folder.
        metric: the result that messages tell.
    """

    name: str
    trainings: Sequence[MovingTraining]
    table: ResultTable
    run: Run
    folder: str
    writing: Path
    metric: str

    def train(self) -> Results:
        """Train everything that no other process has trained or is training, and wait for the rest.

        Returns:
            ``trained``, the number of trainings done by this process.
        """
        folder = self.run.path / self.folder
        with Worker(FileLeases(folder / "leases"), log=self.run.log_message) as worker:
            stages = MovingStages(self.run, self.folder, worker.lease.worker)
            with worker.store.lock(), self.table.locked(), held(self.writing, wait=False) as alone:
                if alone and not worker.others():
                    # of killed processes; the lock of the run does not cover this folder
                    clear_parts(list(folder.rglob(".*")))
            units = _Units(self, stages, worker.lease.worker)
            share(worker, units)
            with worker.store.lock():
                stages.clear(self.table.done())
        return {"trained": units.recorded}

    def recorded(self) -> int:
        """Return the number of trainings with a row."""
        return len({(each.arch.key, each.seed) for each in self.trainings} & self.table.done())

    @contextmanager
    def watched(self, progress: Progress) -> Iterator[None]:
        """Advance a progress by the rows that any process records within the context."""

        def poll() -> None:
            if (new := self.recorded() - progress.done) > 0:
                progress.advance(new)

        def watch() -> None:
            with suppress(Exception):  # the process that writes rows reports a full disk
                poll()

        with repeated(watch, POLL):
            yield
        poll()


class _Units:
    """The trainings as units of work."""

    def __init__(self, shared: SharedTrainings, stages: MovingStages, worker: str) -> None:
        self.shared = shared
        self.stages = stages
        self.worker = worker
        self.trainings = {f"{each.arch.key} seed {each.seed}": each for each in shared.trainings}
        self.left: list[str] = []
        self.stage: MovingStage | None = None
        self.recorded = 0

    def free(self) -> list[str]:
        """List the trainings without a row."""
        done = self.shared.table.done()
        self.left = [unit for unit, each in self.trainings.items() if (each.arch.key, each.seed) not in done]
        return self.left

    def wait(self) -> float | None:
        """Wait while others train."""
        return PAUSE if self.left else None

    def begin(self, unit: str) -> None:
        """Open the folder of the training, with the checkpoints of a lost worker."""
        training = self.trainings[unit]
        self.stage = self.stages.take(training.arch.key, training.seed, training.inputs)

    def do(self, unit: str) -> Results | None:
        """Train, or abandon a training that another worker has taken over."""
        stage = self._begun
        try:
            return self.trainings[unit].train_in(stage)
        except FileNotFoundError:
            if not stage.taken_over:
                raise
            return None

    def record(self, unit: str, result: Results) -> None:
        """Write the row, and delete the checkpoints."""
        key, seed = self.trainings[unit].arch.key, self.trainings[unit].seed
        shared = self.shared
        done = shared.table.done()
        if (key, seed) in done:
            return
        row: dict[str, Any] = {"key": key, "seed": seed}
        shared.table.append(row | result)
        self._begun.end()
        self.recorded += 1
        number = f"{len(done) + 1}/{len(self.trainings)}"
        measure = measure_named(shared.metric)
        reached = f"{measure.factor * result[measure.name]:.{measure.digits}f}{measure.symbol}"
        shared.run.log_message(f"{shared.name} {number}: {unit}, {measure.words} {reached}, by {self.worker}")

    @property
    def _begun(self) -> MovingStage:
        if self.stage is None:
            raise RuntimeError("no training has started")
        return self.stage
