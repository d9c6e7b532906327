"""The truth that scores are judged by: every arch trained alone, alike, from several seeds, by many processes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F

from nas_kd.data import Data
from nas_kd.distill import Classification
from nas_kd.nn import resized
from nas_kd.ranking.training import Training, Trainings
from nas_kd.runs.files import CsvLog, atomic_write, clear_parts, read_frame
from nas_kd.runs.leases import FileLeases
from nas_kd.runs.lock import held
from nas_kd.runs.run import Run
from nas_kd.runs.workers import Worker, share
from nas_kd.runtime.device import Runtime
from nas_kd.runtime.seeds import seeded
from nas_kd.space import Arch, ElasticSpace
from nas_kd.teacher import TargetSource
from nas_kd.train.network import predict, train_network
from nas_kd.train.retrain import checked_method

PAUSE = 0.5  # seconds between two looks at what other workers have in hand
COLUMNS = (
    "key",
    "seed",
    "accuracy",
    "test_accuracy",
    "select_accuracy",
    "test_agreement",
    "test_loss",
    "seconds",
    "cpu_seconds",
)


@dataclass(frozen=True)
class Alone:
    """How each arch is trained for the truth.

    Args:
        method: distillation method that needs labels and logits alone.
        epochs: passes over the training images.
        batch_size: images a step.
        lr: peak learning rate of SGD with a cosine to zero.
        momentum: Nesterov momentum.
        weight_decay: decay of weights.
        warmup_epochs: epochs of linear warm-up.
        clip_grad: greatest magnitude of an entry of the gradient, 0 for no clipping.
        ema: decay of an average of the weights that is measured in their place, 0 for none.
    """

    method: str = "kd"
    epochs: int = 10
    batch_size: int = 64
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup_epochs: float = 1.0
    clip_grad: float = 0.0
    ema: float = 0.0


def train_alone(
    arch: Arch,
    space: ElasticSpace,
    teacher: TargetSource,
    data: Data,
    how: Alone,
    *,
    seed: int,
    runtime: Runtime,
    stage: Training | None = None,
) -> dict[str, float]:
    """Train one arch from new weights and measure it on images that nothing was chosen on.

    Args:
        arch: the arch.
        space: its space.
        teacher: the teacher's stored logits.
        data: the data; ``train`` is trained on, ``select`` and ``test`` measure. Scores use ``rate``.
        how: the training.
        seed: seed of weights and order.
        runtime: device and precision.
        stage: keeps the training's state, so that it may go on after a kill; None keeps nothing.

    Returns:
        ``accuracy`` over select and test together, both apart, agreement with the teacher, the test loss
        (nats), seconds by the clock and of the processor: of all processes that had a part in the result.
    """
    begun = time.perf_counter()
    used = time.process_time()
    task = Classification(smoothing=0.0)
    settings = asdict(how)
    distiller = checked_method(settings.pop("method"), task, data.num_classes)
    seeded(seed, "init", arch.key)
    network = resized(space.build(arch, data.num_classes, data.in_chans), arch.resolution)
    try:
        train_network(
            network,
            data,
            distiller=distiller,
            source=teacher,
            stage=stage,
            name="truth",
            seed=seed,
            runtime=runtime,
            **settings,
        )
    except FloatingPointError as error:
        said = str(error).replace("truth.lr", "rank.lr")
        raise FloatingPointError(f"rank: arch {arch.key} ({arch.label}), seed {seed}: {said}") from error
    found: dict[str, float] = {}
    hits = 0.0
    for name in ("select", "test"):
        split = getattr(data, name)
        logits = predict(network, split, runtime)
        found[f"{name}_accuracy"] = task.metric(logits, split.labels)
        hits += found[f"{name}_accuracy"] * len(split)
    found["accuracy"] = hits / (len(data.select) + len(data.test))
    wanted = teacher.split_logits("test", data)
    found["test_agreement"] = math.nan if wanted is None else task.agreement(logits, wanted)
    found["test_loss"] = float(F.cross_entropy(logits, data.test.labels))
    spent = stage.spent if stage is not None else (time.perf_counter() - begun, time.process_time() - used)
    return found | dict(zip(("seconds", "cpu_seconds"), spent, strict=True))


def jobs_of(archs: pd.DataFrame, seeds: int) -> list[tuple[int, int]]:
    """List what is to be trained: (row of the archs, seed), all archs of a seed before the next seed."""
    return [(row, seed) for seed in range(seeds) for row in range(len(archs))]


class TruthTable:
    """The rows of the truth, which several processes add to.

    Args:
        folder: holds truth.csv; every process names the same.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "truth.csv"
        self.lock = folder / "claims" / "table.lock"
        with held(self.lock, wait=True):
            if not self.path.exists():
                atomic_write(self.path, ",".join(COLUMNS) + "\n")
            CsvLog(self.path)  # drops the half of a line that a killed process left

    def frame(self) -> pd.DataFrame:
        """Read all rows."""
        with held(self.lock, wait=True):
            return read_frame(self.path)

    def done(self) -> set[tuple[str, int]]:
        """Return (key, seed) of the rows that are there."""
        table = self.frame()
        return set(zip(table["key"], table["seed"].astype(int), strict=True))

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row."""
        with held(self.lock, wait=True):
            CsvLog(self.path).append({name: row[name] for name in COLUMNS})


def train_truth(
    archs: Sequence[Arch],
    jobs: Sequence[tuple[int, int]],
    run: Run,
    *,
    space: ElasticSpace,
    teacher: TargetSource,
    data: Data,
    how: Alone,
    runtime: Runtime,
) -> int:
    """Train what no other process has trained or is training, and wait for the rest.

    Each row is written when its training ends, by whoever trained it. Who trains what is in the leases of the
    folder: the training of a worker that is lost, or that was asked to stop, is taken up by another from its last
    checkpoint.

    Args:
        archs: the archs.
        jobs: (number of the arch, seed), in the order of their turns.
        run: the run; every process names the same.
        space: the archs' space.
        teacher: the teacher's stored logits.
        data: the data.
        how: the training.
        runtime: device and precision.

    Returns:
        How many trainings this process did.
    """
    folder = run.path / "rank"
    table = TruthTable(folder)
    wanted = {f"{archs[number].key} seed {seed}": (archs[number], seed) for number, seed in jobs}
    inputs = asdict(how) | {"space": space.hash, "teacher": teacher.fingerprint, "data": data.fingerprint}

    def train(arch: Arch, seed: int, training: Training) -> dict[str, float]:
        return train_alone(arch, space, teacher, data, how, seed=seed, runtime=runtime, stage=training)

    with Worker(FileLeases(folder / "leases"), log=run.say) as worker:
        trainings = Trainings(run, worker.lease.worker)
        with worker.store.lock(), held(table.lock, wait=True), held(folder / "claims/scores.lock", wait=False) as idle:
            if idle and not worker.others():
                clear_parts(list(folder.rglob(".*")))  # of whoever was killed; the run's lock leaves them to us
        shared = _SharedTrainings(wanted, table, trainings, inputs, train, run, worker.lease.worker)
        share(worker, shared)
        with worker.store.lock():
            trainings.clear(table.done())
    return shared.recorded


class _SharedTrainings:
    """The trainings of a sample, which several workers share: each is a unit of their work."""

    def __init__(
        self,
        wanted: Mapping[str, tuple[Arch, int]],
        table: TruthTable,
        trainings: Trainings,
        inputs: Mapping[str, Any],
        train: Callable[[Arch, int, Training], dict[str, float]],
        run: Run,
        worker: str,
    ) -> None:
        self.wanted = wanted
        self.table = table
        self.trainings = trainings
        self.inputs = inputs
        self.train = train
        self.run = run
        self.worker = worker
        self.recorded = 0
        self.left: list[str] = []
        self.training: Training | None = None

    def free(self) -> list[str]:
        """List the trainings without a row."""
        done = self.table.done()
        self.left = [unit for unit, (arch, seed) in self.wanted.items() if (arch.key, seed) not in done]
        return self.left

    def wait(self) -> float | None:
        """Look again while others train."""
        return PAUSE if self.left else None

    def begin(self, unit: str) -> None:
        """Open the training's folder, with the checkpoints that another worker left."""
        arch, seed = self.wanted[unit]
        self.training = self.trainings.take(arch.key, seed, self.inputs)

    def do(self, unit: str) -> dict[str, float] | None:
        """Train, or give up what another worker has taken over."""
        training = self._begun
        try:
            return self.train(*self.wanted[unit], training)
        except FileNotFoundError:
            if not training.taken:
                raise
            return None

    def record(self, unit: str, result: dict[str, float]) -> None:
        """Write the row, and delete the checkpoints."""
        arch, seed = self.wanted[unit]
        done = self.table.done()
        if (arch.key, seed) in done:
            return
        self.table.append({"key": arch.key, "seed": seed} | result)
        self._begun.end()
        self.recorded += 1
        number = f"{len(done) + 1}/{len(self.wanted)}"
        self.run.say(f"truth {number}: {unit}, accuracy {100 * result['accuracy']:.2f} %, by {self.worker}")

    @property
    def _begun(self) -> Training:
        if self.training is None:
            raise RuntimeError("no training has begun")
        return self.training


def worker(**job: Any) -> int:
    """Train in a process of its own until nothing is left."""
    torch.set_num_threads(1)
    return train_truth(**job)
