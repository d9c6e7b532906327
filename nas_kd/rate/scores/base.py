"""What a score of archs is, what scores measure on, and what they cost."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import pandas as pd
import torch
from torch import Tensor

from nas_kd.data import Data
from nas_kd.distill import Classification, Task
from nas_kd.errors import SettingError
from nas_kd.nn import NormValues, Recorder, inputs
from nas_kd.rate.features import gather
from nas_kd.runtime.device import Runtime
from nas_kd.space import Arch, Candidate, ElasticSpace
from nas_kd.space.paths import Entry
from nas_kd.supernet import ElasticStage, Supernet
from nas_kd.teacher import TargetSource, Teacher
from nas_kd.train.stages import Blockwise, StageFeatures

CHUNK = 256  # images a forward pass

Part = TypeVar("Part")
Key = tuple[int, Entry, Candidate]  # what a stage's behaviour depends on


class StagePass(NamedTuple):
    """One candidate of a stage, fed by the teacher.

    Args:
        calibration: (N, width, H, W) before the last activation, on the training images of the norms.
        rating: the same on the rating images.
    """

    calibration: Tensor
    rating: Tensor


@dataclass
class Usage:
    """Forward passes, in images through a whole network; a backward pass counts as two."""

    teacher: float = 0.0
    student: float = 0.0


@dataclass
class Bench:
    """The networks and images that all scores are measured with.

    Args:
        space: the archs' space.
        data: the data; ``train`` calibrates and trains, ``rate`` scores.
        runtime: device and precision.
        teacher: a teacher, its taps chosen where a score compares features; None where no score needs one.
        net: the in-place distilled supernet; None where no score needs it.
        model: the blockwise-trained stages; None where no score needs them.
        cache: the teacher's stored logits for short trainings; None runs the teacher live.
        images: rating images.
        calibration_images: training images that norms are measured on.
        seed: seed of new weights and of random scores.
        accuracies: mean accuracy of archs that were trained, by key, for scores that learn from a few of them.
        task: label loss and metric.
        training_images: images through a network that one of those trainings took, backward passes included.
    """

    space: ElasticSpace
    data: Data
    runtime: Runtime
    teacher: Teacher | None = None
    net: Supernet | None = None
    model: Blockwise | None = None
    cache: TargetSource | None = None
    images: int = 1024
    calibration_images: int = 512
    seed: int = 0
    accuracies: Mapping[str, float] = field(default_factory=dict)
    training_images: float = 0.0
    task: Task = Classification(smoothing=0.0)
    used: Usage = field(default_factory=Usage)
    notes: dict[str, float] = field(default_factory=dict)

    @property
    def cost(self) -> dict[str, int]:
        """What ``space.cost`` needs besides an arch."""
        data = self.data
        size = {} if self.space.resolutions else {"resolution": data.resolution}
        return size | {"in_chans": data.in_chans, "num_classes": data.num_classes}

    def need_teacher(self) -> Teacher:
        """Return the teacher; raise if there is none."""
        return _there(self.teacher, "teacher", "a teacher")

    def need_net(self) -> Supernet:
        """Return the supernet; raise if there is none."""
        return _there(self.net, "net", "an in-place distilled supernet")

    def need_model(self) -> Blockwise:
        """Return the blockwise-trained stages; raise if there are none."""
        return _there(self.model, "model", "blockwise-trained stages")

    @cached_property
    def rating_images(self) -> Any:
        """The rating images, (N, C, H, W), or texts."""
        batches = self.data.rate.clean(CHUNK, limit=self.images)
        return inputs.joined([inputs.moved(batch.x, self.runtime.device) for batch in batches])

    @cached_property
    def _features(self) -> tuple[list[StageFeatures], list[StageFeatures]]:
        model = self.need_model()
        teacher = self.need_teacher()
        train = self.data.train.clean(CHUNK, limit=self.calibration_images)
        rate = self.data.rate.clean(CHUNK, limit=self.images)
        return gather(model, teacher, train, self.runtime), gather(model, teacher, rate, self.runtime)

    def features(self) -> tuple[list[StageFeatures], list[StageFeatures]]:
        """Return the teacher's features of calibration and rating images; each score that uses them is charged."""
        calibration, rating = self._features
        self.used.teacher += len(calibration[0].inputs) + len(rating[0].inputs)
        return calibration, rating

    @cached_property
    def _logits(self) -> Tensor:
        teacher = self.need_teacher()
        return torch.cat([teacher(x).float() for x in inputs.split(self.rating_images, CHUNK)])

    def teacher_logits(self) -> Tensor:
        """Return the teacher's logits on the rating images (N, C); each score that uses them is charged for them."""
        self.used.teacher += inputs.count(self.rating_images)
        return self._logits

    @torch.no_grad()
    def calibrated(self, key: Key, calibration: Sequence[StageFeatures]) -> tuple[NormValues, Tensor]:
        """Measure the norms of one candidate of a stage on the teacher's features.

        Args:
            key: stage, entry and candidate.
            calibration: what `features` returned first.

        Returns:
            The norms, and what the stage gave before its last activation, (N, width, H, W).
        """
        index, entry, candidate = key
        inputs = calibration[index].inputs
        recorder = Recorder()
        _, seen = self._stage(index)(self.need_model().enter(index, inputs, entry, recorder), candidate, recorder)
        self.used.student += len(inputs) / len(self.space.stages)
        return recorder.values(), seen

    @torch.no_grad()
    def run_stage(self, key: Key, inputs: Tensor, norm: NormValues) -> Tensor:
        """Run one calibrated candidate of a stage.

        Args:
            key: stage, entry and candidate.
            inputs: (N, C, H, W) the stage's inputs as the teacher gives them.
            norm: what `calibrated` returned.

        Returns:
            (N, width, H, W) before the stage's last activation.
        """
        index, entry, candidate = key
        stage = self._stage(index)
        model = self.need_model()
        chunks = inputs.split(CHUNK)
        out = [stage(model.enter(index, chunk, entry, norm), candidate, norm)[1] for chunk in chunks]
        self.used.student += len(inputs) / len(self.space.stages)
        return torch.cat(out)

    def stage(self, key: Key, calibration: Sequence[StageFeatures], rating: Sequence[StageFeatures]) -> StagePass:
        """Calibrate one candidate of a stage and run it on the rating images.

        Args:
            key: stage, entry and candidate.
            calibration: what `features` returned first.
            rating: what it returned second.

        Returns:
            The stage's outputs.
        """
        norm, seen = self.calibrated(key, calibration)
        return StagePass(seen, self.run_stage(key, rating[key[0]].inputs, norm))

    def _stage(self, index: int) -> ElasticStage:
        stage = self.need_model().stages[index]
        assert isinstance(stage, ElasticStage)
        return stage


def keys_of(space: ElasticSpace, arch: Arch) -> list[Key]:
    """Return what each stage of an arch depends on."""
    entries: list[Entry] = [arch.stem, *(candidate.width for candidate in arch.stages[:-1])]
    return [(index, entries[index], candidate) for index, candidate in enumerate(arch.stages)]


Measure = Callable[[Bench, Sequence[Arch]], list[float]]


@dataclass(frozen=True)
class Score:
    """One number per arch, and whether higher is better.

    Args:
        name: what tables call it.
        measure: returns one number per arch; NaN where it has none.
        higher: whether higher is better.
        kind: ``size`` (known without data; a score must beat these), ``control`` or ``score``.
        needs: of ``teacher``, ``features`` (of the teacher, a tap a stage), ``supernet``, ``blockwise``, ``units`` (a
            space that is the teacher's) and ``truth`` (accuracies of trained archs), what the score requires.
    """

    name: str
    measure: Measure
    higher: bool
    kind: str = "score"
    needs: frozenset[str] = frozenset()

    def signed(self, values: Sequence[float]) -> list[float]:
        """Turn values so that higher is better."""
        return [value if self.higher else -value for value in values]


def measure_scores(scores: Sequence[Score], archs: Sequence[Arch], bench: Bench) -> pd.DataFrame:
    """Compute scores of the same archs, and the cost of each.

    Args:
        scores: the scores.
        archs: the archs.
        bench: what they measure on.

    Returns:
        One row per score and arch: score, key, value (as it is), better (``higher`` or ``lower``), kind, needs,
        and this arch's equal share of the score's teacher_forwards, student_forwards (in images), seconds by
        the clock and cpu_seconds of the processor.
        A value that is not finite is NaN: no arch, and never the best.
    """
    rows = []
    for score in scores:
        bench.used, started, cpu_started = Usage(), time.perf_counter(), time.process_time()
        values = score.measure(bench, archs)
        seconds = time.perf_counter() - started
        cpu = time.process_time() - cpu_started
        for arch, value in zip(archs, values, strict=True):
            rows.append(
                {
                    "score": score.name,
                    "key": arch.key,
                    "value": value if math.isfinite(value) else math.nan,
                    "better": "higher" if score.higher else "lower",
                    "kind": score.kind,
                    "needs": " ".join(sorted(score.needs)),
                    "teacher_forwards": bench.used.teacher / len(archs),
                    "student_forwards": bench.used.student / len(archs),
                    "seconds": seconds / len(archs),
                    "cpu_seconds": cpu / len(archs),
                }
            )
    return pd.DataFrame(rows)


def _there(value: Part | None, field: str, what: str) -> Part:
    if value is None:
        raise SettingError(field, None, f"{what}, which this score needs", "pass it, or omit the score")
    return value
