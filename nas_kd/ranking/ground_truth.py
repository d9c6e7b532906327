"""The ground truth of a ranking: standalone trainings with several seeds, shared by any number of processes."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nas_kd.nn import resized
from nas_kd.ranking.config import RankConfig
from nas_kd.runs.results import ResultTable
from nas_kd.runs.run import Run
from nas_kd.space import Arch
from nas_kd.train.config import TrainingConfig
from nas_kd.train.many import Results, TrainingSetup
from nas_kd.train.many_shared import SharedTrainings
from nas_kd.train.moving import MovingStage
from nas_kd.train.network import predict, train_network
from nas_kd.train.retrain import checked_method
from nas_kd.train.start import starting_network

FOLDER = "rank"  # in the run
MEASURED = ("", "test_", "select_")  # what stands before the name of the task's measure in columns


def ground_truth(run: Run, metric: str) -> ResultTable:
    """Return the table of the ground truth of a run's ranking.

    Args:
        metric: the name of the task's measure; older tables call every measure accuracy.
    """
    own = [f"{part}{metric}" for part in MEASURED]
    columns = ("key", "seed", *own, "test_agreement", "test_loss", "seconds", "cpu_seconds")
    table = ResultTable(run.path / FOLDER / "truth.csv", columns)
    table.rename({f"{part}accuracy": name for part, name in zip(MEASURED, own, strict=True)})
    return table


@dataclass(frozen=True)
class StandaloneTraining:
    """One training of the ground truth, whose checkpoints other workers can take over.

    Args:
        setup: teacher, data, space, and the weights to begin with.
        seed: seed of weights and order.
        config: settings of the ranking.
    """

    setup: TrainingSetup
    arch: Arch
    seed: int
    config: RankConfig

    @property
    def inputs(self) -> dict[str, Any]:
        """Everything but arch and seed that determines the result."""
        setup = self.setup
        teacher = None if setup.teacher is None else setup.teacher.fingerprint
        return self.config.training | {"space": setup.space.hash, "teacher": teacher, "data": setup.data.fingerprint}

    def train_in(self, stage: MovingStage | None) -> Results:
        """Train as in the end, or resume from the checkpoint, and evaluate on images not used for any choice.

        Args:
            stage: where checkpoints are stored; None stores nothing.

        Returns:
            The task's measure by its name, such as ``accuracy``, over select and test together and on each, agreement
            with the teacher, the test loss (nats), and wall and CPU seconds of all processes that contributed.
        """
        start = time.perf_counter()
        cpu_start = time.process_time()
        task = self.setup.task
        arch = self.arch
        data = self.setup.data
        runtime = self.setup.runtime
        teacher = self.setup.teacher
        settings = self.config.training
        distiller = checked_method(settings.pop("method"), task, data.num_classes)
        begun = starting_network(arch, self.setup.space, data, self.seed, self.setup.supernet)
        network = resized(begun, arch.resolution)
        try:
            train_network(
                network,
                data,
                TrainingConfig(**settings),
                distiller=distiller,
                source=teacher,
                stage=stage,
                name="truth",
                seed=self.seed,
                runtime=runtime,
            )
        except FloatingPointError as error:
            message = str(error).replace("truth.lr", "rank.lr")
            raise FloatingPointError(f"rank: arch {arch.key} ({arch.label}), seed {self.seed}: {message}") from error
        found: dict[str, float] = {}
        sums = 0.0
        for name in ("select", "test"):
            split = getattr(data, name)
            logits = predict(network, split, runtime)
            found[f"{name}_{task.measure}"] = task.metric(logits, split.labels)
            sums += found[f"{name}_{task.measure}"] * len(split)
        found[task.measure] = sums / (len(data.select) + len(data.test))
        teacher_logits = None if teacher is None else teacher.split_logits("test", data)
        found["test_agreement"] = math.nan if teacher_logits is None else task.agreement(logits, teacher_logits)
        found["test_loss"] = float(task.loss(logits, data.test.labels))
        spent = stage.spent if stage is not None else (time.perf_counter() - start, time.process_time() - cpu_start)
        return found | dict(zip(("seconds", "cpu_seconds"), spent, strict=True))


def trainings_of(
    archs: Sequence[Arch], seeds: int, setup: TrainingSetup, config: RankConfig, run: Run
) -> SharedTrainings:
    """Return the shared trainings of a ranking: all archs with one seed before the next seed."""
    trainings = [StandaloneTraining(setup, arch, seed, config) for seed in range(seeds) for arch in archs]
    scoring = run.path / FOLDER / "claims" / "scores.lock"
    metric = setup.task.measure
    return SharedTrainings("ground truth", trainings, ground_truth(run, metric), run, FOLDER, scoring, metric)
