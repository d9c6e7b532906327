"""Blockwise rating: train every stage on the teacher's features, then score every candidate."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from scipy.stats import kendalltau

from nas_kd.data import Data
from nas_kd.errors import SettingError, nearest
from nas_kd.rate.halving import by_entry, count_evaluations, rate_stage, without_heads
from nas_kd.rate.nmse import BATCH, gather
from nas_kd.rate.rows import check_size, full_rows, rows_of
from nas_kd.rate.tree import tree_size
from nas_kd.run import Run, Stage
from nas_kd.runtime import Progress, Runtime
from nas_kd.supernet import Supernet
from nas_kd.teacher import Teacher
from nas_kd.train.blockwise import Blockwise, StageFeatures, train_blockwise
from nas_kd.train.loop import check_epochs
from nas_kd.train.optim import Schedule
from nas_kd.train.paths import SAMPLINGS
from nas_kd.train.weights import save_weights, weights_hash

HALF_TIME_IMAGES = 512


def rate_blockwise(
    net: Supernet, teacher: Teacher, data: Data, *, run: Run | str | None = None, epochs: int = 5,
    batch_size: int = 64, lr: float = 1e-2, weight_decay: float = 1e-4, init: str = "supernet",
    train: bool = True, sampling: str = "fair", paths: int | None = None, rate_images: int | None = None,
    calibration_images: int = 512, max_rows: int = 20_000, seed: int = 0, runtime: Runtime | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> list[pd.DataFrame]:  # fmt: skip
    """Score every candidate of every stage by how well it reproduces the teacher's next feature.

    Args:
        net: the supernet; a copy of it is trained.
        teacher: the teacher; it is bound to the data, and its taps are chosen.
        data: the data; ``train`` is trained on without labels, ``rate`` is scored on.
        run: run folder; the same call again goes on where it stopped.
        epochs: passes over the training images.
        batch_size: images a step.
        lr: peak learning rate of AdamW.
        weight_decay: decay of weights; norms and biases are not decayed.
        init: ``supernet`` starts from the supernet's weights, ``scratch`` from new ones.
        train: False keeps the stages' weights and trains the adapters only.
        sampling: ``fair`` (every choice of every layer equally often) or ``uniform``.
        paths: paths a stage and step; None is one a choice of a layer, at most 4.
        rate_images: rating images, None for all.
        calibration_images: training images that norm statistics are measured on.
        max_rows: rate all rows of a stage up to this many; above, by successive halving.
        seed: seed of order, augmentation, adapters and paths.
        runtime: device and precision; default: what the machine has.
        inputs: more facts that determine the result, for the run's record.

    Returns:
        One table a stage, one row an (input width, candidate): ``score`` (normalised squared error, lower is
        better, additive over stages), ``macs``, ``params``, ``in_width``, ``out_width``, ``candidate`` (index
        in the stage's ``candidates()``), ``label`` and ``images`` (rating images behind the score). Where the
        stem or the head is elastic, the first table has a column ``stem``, the last one ``head`` (see
        `rows_of`); a head's choices share the score, because it comes after what is compared.

    Raises:
        SettingError: a setting is out of range, the teacher does not fit, or the run was made with others.

    Source: DNA (Li et al. 2020); normalised error: Puzzle (Bercovich et al. 2024).
    """
    net.check_data(data.in_chans, data.num_classes)
    check_size(net.space, data.resolution)
    _check(data, epochs, batch_size, init, sampling, paths, rate_images, calibration_images, max_rows)
    Schedule(lr)  # raises when lr is out of range, before the run folder is touched
    settings = {
        "epochs": epochs, "batch_size": batch_size, "lr": lr, "weight_decay": weight_decay, "init": init,
        "train": train, "sampling": sampling, "paths": paths, "rate_images": rate_images,
        "calibration_images": calibration_images, "max_rows": max_rows,
    }  # fmt: skip
    taps = teacher.bind(data).match(net.space, data.resolution)
    run, runtime = Run.of(run), runtime or Runtime()
    stage = None
    if run is not None:
        facts: dict[str, Any] = {
            "space": net.space.hash, "data": data.fingerprint, "teacher": teacher.fingerprint,
            "taps": [f"{tap.path} {tap.size}>{tap.student_size}" for tap in taps], "seed": seed,
            "supernet": weights_hash(net) if init == "supernet" else None, "precision": runtime.precision,
        }  # fmt: skip
        facts |= {f"blockwise.{key}": value for key, value in settings.items()}
        facts |= data.augmentation | dict(inputs or {})
        stage = run.stage("blockwise", facts)
        if stage.done:
            return _finished(stage)
    teacher.to(runtime.device)
    model = Blockwise(net, taps, init=init, seed=seed).to(runtime.device)
    calibration = gather(model, teacher, data.train.clean(BATCH, limit=calibration_images), runtime)
    calibration = model.rescale(calibration)
    images = min(rate_images or len(data.rate), len(data.rate))
    rating = gather(model, teacher, data.rate.clean(BATCH, limit=images), runtime)
    rater = _Rater(model, data, calibration, rating, max_rows, stage)
    half: list[pd.DataFrame] = []

    def half_time(epoch: int) -> None:
        if epoch == epochs // 2:
            half.extend(rater.rate("half", min(images, HALF_TIME_IMAGES)))

    train_blockwise(
        model, teacher, data, epochs=epochs, batch_size=batch_size, lr=lr, weight_decay=weight_decay,
        train=train, sampling=sampling, paths=paths, seed=seed, runtime=runtime, stage=stage,
        after_epoch=half_time,
    )  # fmt: skip
    if stage is not None:
        save_weights(model, stage.folder / "adapters.safetensors")
        if epochs > 1:  # rated in an earlier process when the training was resumed after half time
            half = [stage.read_frame(f"half_{number}.csv") for number in range(1, len(taps) + 1)]
    tables = rater.rate("stage", images)
    summary = rater.summarise(tables, half)
    if stage is None:
        return tables
    stage.write_frame("summary.csv", summary)
    stage.finish({"rows": [len(table) for table in tables], "fingerprint": weights_hash(model)})
    return _finished(stage)


def _finished(stage: Stage) -> list[pd.DataFrame]:
    """Read the tables of a finished rating, whole."""
    tables = []
    for number, rows in enumerate(stage.facts["rows"], 1):
        table = stage.read_frame(f"stage_{number}.csv")
        if len(table) != rows or "images" not in table or table["images"].isna().any():
            legal = f"the table of {rows} rows that nas_kd wrote"
            mend = f"delete {stage.folder} and give the same command again"
            raise SettingError("run", str(stage.folder / f"stage_{number}.csv"), legal, mend)
        tables.append(table)
    return tables


class _Rater:
    """Rates a training model whenever it is asked to, on features that were gathered once."""

    def __init__(
        self, model: Blockwise, data: Data, calibration: Sequence[StageFeatures],
        rating: Sequence[StageFeatures], max_rows: int, stage: Stage | None,
    ) -> None:  # fmt: skip
        self.model, self.calibration, self.rating, self.max_rows = model, calibration, rating, max_rows
        self.stage = stage
        shape = {"resolution": data.resolution, "in_chans": data.in_chans, "num_classes": data.num_classes}
        self.rows = [rows_of(model.space, index, **shape) for index in range(len(rating))]

    def rate(self, name: str, images: int) -> list[pd.DataFrame]:
        """Rate all stages; a stage whose table is already written is kept."""
        space, tables = self.model.space, []
        layers = [
            sum(tree_size(space.stages[index].candidates(), part["candidate"].tolist())
                for _, part in by_entry(space, index, without_heads(rows)))
            for index, rows in enumerate(self.rows)
        ]
        run = self.stage.run if self.stage else None
        title = "blockwise: half-time rating" if name == "half" else "blockwise: rating"
        with Progress(title, sum(layers), unit="layers", run=run) as progress:

            def announce(more: int) -> None:
                progress.total += more

            for index, (calibration, rating) in enumerate(zip(self.calibration, self.rating, strict=True)):
                file = f"{name}_{index + 1}.csv"
                if self.stage is not None and (self.stage.folder / file).exists():
                    tables.append(self.stage.read_frame(file))
                    progress.advance(layers[index])
                    continue
                begun = time.perf_counter()
                table = rate_stage(
                    self.model, index, self.rows[index], calibration, rating.head(images),
                    max_rows=self.max_rows, announce=announce, advance=progress.advance,
                )  # fmt: skip
                if self.stage is not None:
                    self.stage.write_frame(file, table)
                    self.stage.seconds(f"{name}_{index + 1} rating", time.perf_counter() - begun)
                tables.append(table)
        return tables

    def summarise(self, tables: Sequence[pd.DataFrame], half: Sequence[pd.DataFrame]) -> pd.DataFrame:
        """Say of each stage how it was rated and how far the scores agree with those at half time."""
        rows = []
        for index, table in enumerate(tables):
            full = full_rows(table)
            made, path_by_path = count_evaluations(self.model.space, index, table)
            rated = "all" if len(without_heads(table)) <= self.max_rows else "halving"
            tau = float("nan")
            if half:
                both = full.index.intersection(full_rows(half[index]).index)
                tau = _tau(half[index].loc[both, "score"], full.loc[both, "score"])
            row: dict[str, Any] = {
                "stage": index + 1, "rows": len(table), "rated": rated, "rows_full": len(full),
                "images": int(full["images"].iloc[0]),
                "calibration_images": len(self.calibration[index].inputs),
                "tau_half_full": tau, "tau_score_macs": _tau(full["score"], full["macs"]),
                "layer_evaluations": made, "layer_evaluations_path_by_path": path_by_path,
                "score_min": full["score"].min(), "score_median": full["score"].median(),
                "score_max": full["score"].max(), "score_spread": full["score"].std(),
            }  # fmt: skip
            rows.append(row)
            how = "all rated" if rated == "all" else f"rated by halving, {len(full)} to the end"
            agree = f"tau(half, end) {tau:.2f}" if half else "no half time in one epoch"
            self._say(f"stage {index + 1}: {len(table)} rows {how}, {agree}")
        return pd.DataFrame(rows)

    def _say(self, line: str) -> None:
        if self.stage is not None:
            self.stage.run.say(line)
        else:
            print(line, file=sys.stderr, flush=True)


def _tau(a: pd.Series[Any], b: pd.Series[Any]) -> float:
    return float(kendalltau(a, b).statistic)


def _check(
    data: Data, epochs: int, batch_size: int, init: str, sampling: str, paths: int | None,
    rate_images: int | None, calibration_images: int, max_rows: int,
) -> None:  # fmt: skip
    check_epochs("blockwise", epochs, batch_size, data.train)
    words = {"init": (init, ("supernet", "scratch")), "sampling": (sampling, tuple(SAMPLINGS))}
    for name, (word, valid) in words.items():
        if word not in valid:
            raise SettingError(f"blockwise.{name}", word, " or ".join(valid), nearest(word, valid))
    least = {
        "paths": (paths, 1), "rate_images": (rate_images, 2), "calibration_images": (calibration_images, 2),
        "max_rows": (max_rows, 1),
    }  # fmt: skip
    for name, (value, low) in least.items():
        if value is not None and value < low:
            raise SettingError(f"blockwise.{name}", value, f"an integer of at least {low}")
    if len(data.rate) < 2:
        raise SettingError("data.rate", len(data.rate), "at least 2 images to score on", "use data.rate=0.05")
