"""The scores of a ranking: measured once, with one supernet and its stages, and stored in scores.csv."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from nas_kd.config.checks import MIN_ARCHS
from nas_kd.data import Data
from nas_kd.distill import Task
from nas_kd.errors import SettingError
from nas_kd.ranking.config import RankConfig
from nas_kd.rate import rate_blockwise
from nas_kd.rate.scores import Bench, Score, measure_scores
from nas_kd.runs.files import atomic_json, atomic_write, read_frame, read_json
from nas_kd.runs.run import Run
from nas_kd.runtime.device import Runtime
from nas_kd.space import Arch, ElasticSpace
from nas_kd.supernet import Supernet
from nas_kd.teacher import TargetSource, Teacher
from nas_kd.train.blockwise_config import BlockwiseConfig
from nas_kd.train.stages import Blockwise
from nas_kd.train.weights import load_weights, weights_hash


@dataclass
class Prepared:
    """Supernet and stages, created when the first score needs them.

    Args:
        given: the supernet, or a function that returns it.
        blockwise: settings of ``rate_blockwise``.
        runtime: device and precision.
        seed: seed of the stages and of the scores.
        task: label loss and metric.
    """

    space: ElasticSpace
    teacher: Teacher
    data: Data
    given: Supernet | Callable[[], Supernet] | None
    blockwise: BlockwiseConfig
    run: Run
    runtime: Runtime
    seed: int
    task: Task

    def net(self) -> Supernet:
        """Return the supernet."""
        if self.given is not None and not isinstance(self.given, Supernet):
            self.given = self.given()
        assert self.given is not None  # checked by `rank`
        return self.given

    def model(self) -> Blockwise:
        """Return the blockwise-trained stages; they are trained if necessary and stored in the run."""
        return self._model.to(self.runtime.device)

    @cached_property
    def _model(self) -> Blockwise:
        net = self.net()
        config = self.blockwise
        if config.source == "average":
            expected = "teacher for the scores of stages, which compare with the teacher's features"
            raise SettingError("blockwise.source", config.source, expected, "leave these scores out of rank.scores")
        rate_blockwise(net, self.teacher, self.data, config, run=self.run, seed=self.seed, runtime=self.runtime)
        taps = self.teacher.match(self.space, self.data.resolution)
        model = Blockwise(net, taps, init=config.init, seed=self.seed)
        load_weights(model, self.run.path / "blockwise" / "adapters.safetensors")
        return model

    def available(self) -> frozenset[str]:
        """Return which of supernet and stages exist already, without training."""
        there = {name for name in ("supernet", "blockwise") if (self.run.path / name).is_dir()}
        return frozenset(there | ({"supernet"} if isinstance(self.given, Supernet) else set()))

    def hashes(self, needs: frozenset[str]) -> dict[str, str]:
        """Return hashes of the weights that scores with these needs use."""
        hashes = {"supernet": weights_hash(self.net())} if "supernet" in needs else {}
        return hashes | ({"blockwise": weights_hash(self.model())} if "blockwise" in needs else {})

    def bench(self, needs: frozenset[str], **more: Any) -> Bench:
        """Return the context for scores with these needs."""
        self.teacher.to(self.runtime.device)
        model = self.model() if "blockwise" in needs else None
        net = self.net() if "supernet" in needs else None
        return Bench(
            self.space, self.data, self.runtime, self.teacher, net, model, seed=self.seed, task=self.task, **more
        )


def kept_scores(
    scores: Sequence[Score],
    archs: Sequence[Arch],
    truth: pd.DataFrame,
    folder: Path,
    prepared: Prepared,
    cache: TargetSource,
    config: RankConfig,
) -> pd.DataFrame:
    """Measure the scores that are not in scores.csv yet, and again those that learn from the ground truth.

    Args:
        truth: the ground truth, one row per arch and seed.
        folder: ``rank`` in the run; scores.json in it has the hashes of the weights used for scores.csv.
        cache: the teacher's stored logits.

    Returns:
        One row per score and arch.

    Raises:
        SettingError: existing rows were measured with other weights.
    """
    path = folder / "scores.csv"
    kept = read_frame(path)
    learned = [score.name for score in scores if "truth" in score.needs]  # again, since the ground truth may have grown
    kept = kept[~kept["score"].isin(learned)] if len(kept) else kept
    have = set()
    if len(kept):  # scores of fewer archs are measured again: some are relative to all archs
        counts = kept.groupby("score")["key"].nunique()
        have = set(counts[counts == len(archs)].index)
        kept = kept[kept["score"].isin(have) | ~kept["score"].isin([score.name for score in scores])]
    missing = [score for score in scores if score.name not in have]
    needs = frozenset().union(*(score.needs for score in missing))
    all_needs = frozenset().union(*(score.needs for score in scores))
    # tables that were copied without weights are used without them
    _check_weights(folder, prepared.hashes(needs | (all_needs & prepared.available())))
    mean = truth.groupby("key")["accuracy"].mean()
    bench = prepared.bench(
        needs,
        cache=cache,
        images=config.images,
        calibration_images=config.calibration_images,
        accuracies=dict(zip(mean.index, mean, strict=True)),
        training_images=3.0 * config.epochs * len(prepared.data.train) * len(truth) / max(1, len(mean)),
    )
    for score in missing:
        if "truth" in score.needs and len(mean) < 2 * MIN_ARCHS:
            prepared.run.log_message(
                f"{score.name} is left out: it needs at least {2 * MIN_ARCHS} trained archs to learn from"
            )
            continue
        rows = measure_scores([score], archs, bench)
        unknown = int(rows["value"].isna().sum())
        note = f", {unknown} archs without a finite value" if unknown else ""
        prepared.run.log_message(f"score {score.name}: {rows['seconds'].sum():.0f} s{note}")
        kept = pd.concat([kept, rows], ignore_index=True)
        atomic_write(path, kept.to_csv(index=False))
    for name, value in bench.notes.items():
        prepared.run.log_message(f"{name}: {100 * value:.2f} points")
    return kept[kept["score"].isin([score.name for score in scores])]


def _check_weights(folder: Path, hashes: Mapping[str, str]) -> None:
    """Check that stored scores were measured with the same weights."""
    path = folder / "scores.json"
    old: dict[str, str] = read_json(path) if path.exists() else {}
    for name, hash_ in hashes.items():
        if old.get(name, hash_) != hash_:
            expected = f"{old[name]}, the {name} of the scores in {folder / 'scores.csv'}"
            hint = f"use the earlier settings, or delete {folder / 'scores.csv'} and {path} to measure all scores again"
            raise SettingError(f"rank.{name}", hash_, expected, hint)
    if hashes.items() - old.items():
        atomic_json(path, {**old, **hashes})
