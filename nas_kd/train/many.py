"""Many archs trained: values that say all there is to say of a training, spread over worker processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import nn

from nas_kd.data import Data
from nas_kd.runs.progress import Progress
from nas_kd.runs.run import Run
from nas_kd.runtime.device import Runtime
from nas_kd.runtime.jobs import run_jobs
from nas_kd.space import Arch, ElasticSpace
from nas_kd.supernet import Supernet
from nas_kd.teacher import TargetSource
from nas_kd.train.retrain import retrain

Results = dict[str, float]  # what a training gives, by name


class Training(Protocol):
    """A frozen value that travels to a worker process and is trained there."""

    def train(self) -> Results:
        """Train, or go on from the last checkpoint; what is finished is read back and not done again."""


def train_many(trainings: Sequence[Training], progress: Progress | None = None, *, workers: int = 1) -> list[Results]:
    """Train in parallel processes.

    Args:
        trainings: what to train, in this order.
        progress: counts those that end, or None.
        workers: processes; 1 stays in this one.

    Returns:
        What each gives, in the order of ``trainings``.

    Raises:
        SettingError: ``workers`` is below 1.
        Stopped: a signal asked to stop; what was being trained is saved and goes on next time.
    """
    given = [{"training": training} for training in trainings]
    advance = None if progress is None else progress.advance
    return list(run_jobs(_trained, given, workers=workers, advance=advance))


def _trained(training: Training) -> Results:
    return training.train()


@dataclass(frozen=True)
class TrainingSetup:
    """What the trainings of one call have in common.

    Args:
        teacher: what teaches, or None.
        space: the archs' space.
        run: keeps checkpoints and students; None keeps nothing.
        runtime: device and precision.
        supernet: gives the weights to begin with; None begins with new ones.
    """

    teacher: TargetSource | None
    data: Data
    space: ElasticSpace
    run: Run | None
    runtime: Runtime
    supernet: Supernet | None = None

    def ask_teacher(self, epochs: int, *, test: bool = False) -> None:
        """Have the teacher answer while it is at hand: worker processes have what is stored only.

        Args:
            epochs: epochs whose logits are asked for.
            test: those of the test images too.
        """
        if self.teacher is None:
            return
        if test and self.teacher.shared:
            self.teacher.split_logits("test", self.data)
        self.teacher.prefill(self.data, epochs, self.run)

    def processes(self, workers: int) -> int:
        """Return how many of the processes asked for can train at once.

        A live teacher would be copied into every process, and one GPU serves one training at a time.
        """
        copied = self.teacher is not None and not self.teacher.shared
        return 1 if copied or self.runtime.device.type != "cpu" else workers


def metrics_of(network: nn.Module, training: Retraining) -> Results:
    """Return what `retrain` measured."""
    metrics: Results = network.info["metrics"]  # type: ignore[assignment,index]
    return metrics


@dataclass(frozen=True)
class Retraining:
    """One retraining of an arch, whose record is its own folder in the run.

    Args:
        setup: what it has in common with others.
        arch: the arch.
        seed: seed of weights, order and augmentation.
        folder: its folder in the run.
        settings: further arguments of `retrain`.
        measure: gives the results of the trained network; a function of a module.
    """

    setup: TrainingSetup
    arch: Arch
    seed: int
    folder: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    measure: Callable[[nn.Module, Retraining], Results] = metrics_of

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
            runtime=setup.runtime,
            **self.settings,
        )
        return self.measure(network, self)
