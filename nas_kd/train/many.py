"""Training of many archs: trainings as frozen values, distributed over worker processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from nas_kd.data import Data
from nas_kd.derive.space import TeacherSpace
from nas_kd.distill import Classification, Task
from nas_kd.export.about import Student
from nas_kd.export.handover import factory_of
from nas_kd.runs.progress import Progress
from nas_kd.runs.run import Run
from nas_kd.runtime.device import Runtime
from nas_kd.runtime.jobs import run_jobs
from nas_kd.space import Arch, ElasticSpace
from nas_kd.supernet import Supernet
from nas_kd.teacher import TargetSource
from nas_kd.train.retrain import retrain

Results = dict[str, float]  # the results of a training, by name


def check_rebuilt(space: ElasticSpace, data: Data, run: Run | None) -> None:
    """Refuse, before anything is trained, a teacher whose students could not be rebuilt from their folders of a run.

    Raises:
        SettingError: it is a module of the user's that names no factory.
    """
    if run is not None and isinstance(space, TeacherSpace):
        factory_of(space.derived.network, data, None, None, needed=True)


class Training(Protocol):
    """A frozen value that is pickled to a worker process and trained there."""

    def train(self) -> Results:
        """Train, or resume from the last checkpoint; a finished training is read back."""


def train_many(trainings: Sequence[Training], progress: Progress | None = None, *, workers: int = 1) -> list[Results]:
    """Train in parallel processes.

    Args:
        progress: advanced by every finished training, or None.
        workers: number of processes; 1 trains in this one.

    Returns:
        The results, in the order of ``trainings``.

    Raises:
        SettingError: ``workers`` is below 1.
        Stopped: on a signal; unfinished trainings are saved and resume next time.
    """
    given = [{"training": training} for training in trainings]
    advance = None if progress is None else progress.advance
    return list(run_jobs(_trained, given, workers=workers, advance=advance))


def _trained(training: Training) -> Results:
    return training.train()


@dataclass(frozen=True)
class TrainingSetup:
    """The common arguments of several trainings.

    Args:
        teacher: source of the targets, or None.
        run: where to store checkpoints and students; None stores nothing.
        supernet: source of the initial weights, or a file of one arch's; None draws new ones.
        task: label loss, metric and agreement.
    """

    teacher: TargetSource | None
    data: Data
    space: ElasticSpace
    run: Run | None
    runtime: Runtime
    supernet: Supernet | Path | None = None
    task: Task = Classification(smoothing=0.0)

    def prefill_teacher(self, epochs: int, *, test: bool = False) -> None:
        """Compute the teacher's logits for worker processes, which can only read stored ones.

        Args:
            epochs: epochs of the trainings.
            test: compute those of the test images too.
        """
        if self.teacher is None:
            return
        if test and self.teacher.shared:
            self.teacher.split_logits("test", self.data)
        self.teacher.prefill(self.data, epochs, self.run)

    def processes(self, workers: int) -> int:
        """Return the number of processes to use, at most ``workers``.

        A live teacher would be copied into every process, and a GPU runs one training at a time.
        """
        copied = self.teacher is not None and not self.teacher.shared
        return 1 if copied or self.runtime.device.type != "cpu" else workers


def metrics_of(network: Student, training: Retraining) -> Results:
    """Return the metrics measured by `retrain`."""
    return dict(network.info["metrics"])


@dataclass(frozen=True)
class Retraining:
    """One retraining of an arch, recorded in a folder of the run.

    Args:
        folder: inside the run.
        settings: further arguments of `retrain`.
        measure: returns the results of the trained network; a module-level function.
    """

    setup: TrainingSetup
    arch: Arch
    seed: int
    folder: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    measure: Callable[[Student, Retraining], Results] = metrics_of

    def train(self) -> Results:
        """Retrain the arch; the weights stay in its folder."""
        setup = self.setup
        network = retrain(
            self.arch,
            setup.teacher,
            setup.data,
            space=setup.space,
            supernet=setup.supernet,
            run=setup.run and setup.run.path,
            seed=self.seed,
            folder=self.folder,
            task=setup.task,
            runtime=setup.runtime,
            **self.settings,
        )
        return self.measure(network, self)


@dataclass(frozen=True)
class ModuleRetraining:
    """One retraining of a network that is of no space, whose record is its own folder in the run.

    Args:
        setup: what it has in common with others; its space and supernet are not used.
        make: gives the network to begin with, from the seed; a function of a module, perhaps a partial one.
        seed: seed of weights, order and augmentation.
        folder: its folder in the run.
        settings: further arguments of `retrain`.
    """

    setup: TrainingSetup
    make: Callable[[int], nn.Module]
    seed: int
    folder: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def train(self) -> Results:
        """Retrain the network; the weights stay in its folder."""
        setup = self.setup
        network = retrain(
            self.make(self.seed),
            setup.teacher,
            setup.data,
            run=setup.run and setup.run.path,
            seed=self.seed,
            folder=self.folder,
            task=setup.task,
            runtime=setup.runtime,
            **self.settings,
        )
        return dict(network.info["metrics"])
