"""Blockwise rating: train every stage on the teacher's features, then score every candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from nas_kd.data import Data
from nas_kd.errors import SettingError, nearest
from nas_kd.rate.errors import ERRORS
from nas_kd.rate.features import BATCH, gather
from nas_kd.rate.rater import Rater
from nas_kd.runs.run import Run
from nas_kd.runs.stage import Stage
from nas_kd.runtime.device import Runtime
from nas_kd.space.paths import SAMPLINGS
from nas_kd.space.rows import check_size
from nas_kd.supernet import Supernet
from nas_kd.teacher import Tap, TargetSource, Teacher
from nas_kd.teacher.as_targets import one_teacher
from nas_kd.teacher.stored_features import StageFeatureFiles, feature_bytes
from nas_kd.train.blockwise import train_blockwise
from nas_kd.train.loop import check_epochs
from nas_kd.train.optim import Schedule
from nas_kd.train.stages import Blockwise
from nas_kd.train.weights import load_weights, save_weights, weights_hash

HALF_TIME_IMAGES = 512


def rate_blockwise(
    net: Supernet,
    teacher: Teacher,
    data: Data,
    *,
    run: Run | str | Path | None = None,
    epochs: int = 5,
    batch_size: int = 64,
    lr: float = 1e-2,
    weight_decay: float = 1e-4,
    init: str = "supernet",
    train: bool = True,
    sampling: str = "fair",
    paths: int | None = None,
    rate_images: int | None = None,
    calibration_images: int = 512,
    max_rows: int = 20_000,
    cache_gb: float = 0.0,
    stage: int | None = None,
    mix: float = 0.0,
    error: str = "nsr",
    seed: int = 0,
    runtime: Runtime | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> list[pd.DataFrame]:
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
        cache_gb: keep the teacher's features of all numbered views on the disk, rounded to fp16, where they
            need at most so many GB; later epochs and other processes then run no teacher.
        stage: only this stage, from 1, as a job of its own: jobs of several stages may run at once, end with
            the tables of a whole rating, and are taken over by it.
        mix: share of the training steps in which a stage gets not the teacher's feature but what the student's
            stages before it give; then no stage can be a job of its own.
        error: what scores measure: ``nsr`` (squared error over the variance of the teacher's channel, in the mean over
            channels; DONNA), ``nmse`` (over the teacher's energy; Puzzle) or ``relative_l1`` (absolute error over the
            standard deviation; DNA). Which one ranks best is measured in experiments/rank.
        seed: seed of order, augmentation, adapters and paths.
        runtime: device and precision; default: what the machine has.
        inputs: more facts that determine the result, for the run's record.

    Returns:
        One table a stage (of ``stage`` alone, where it is given), one row an (input width, candidate):
        ``score`` (``error`` of the stage, lower is better, additive over stages), ``macs``, ``params``,
        ``in_width``, ``out_width``, ``candidate`` (index in the stage's ``candidates()``), ``label`` and
        ``images`` (rating images behind the score), and ``space`` and ``teacher``, whose names and hashes tell
        a search whether the table is its own. Where the stem or the head is elastic, the first table has
        a column ``stem``, the last one ``head`` (see `rows_of`); a head's choices share the score, because it
        comes after what is compared.

    Raises:
        SettingError: a setting is out of range, the teacher does not fit, or the run was made with others.

    Source: DNA (Li et al. 2020); the scores: DONNA (Moons et al. 2021), Puzzle (Bercovich et al. 2024).
    """
    teacher = one_teacher(teacher, "rate stages")
    net.check_data(data.in_chans, data.num_classes)
    check_size(net.space, data.resolution)
    _check(data, epochs, batch_size, init, sampling, error, paths, rate_images, calibration_images, max_rows)
    if not 0 <= mix < 1:
        raise SettingError("blockwise.mix", mix, "0 or more and below 1", "use blockwise.mix=0.3, or 0 for none")
    if mix and stage is not None:
        legal = "null with blockwise.mix, which feeds a stage by those before it"
        raise SettingError("blockwise.stage", stage, legal, "rate all stages in one call, or use blockwise.mix=0")
    count = len(net.space.stages)
    if stage is not None and not 1 <= stage <= count:
        raise SettingError("blockwise.stage", stage, f"1 to {count}, a stage of {net.space.name}", "count from 1")
    Schedule(lr)  # raises when lr is out of range, before the run folder is touched
    taps = teacher.bind(data).match(net.space, data.resolution)
    run = Run.of(run)
    runtime = runtime or Runtime()
    stored = _stored_bytes(taps, data, cache_gb, run)
    settings = (
        {
            "epochs": epochs,
            "batch_size": batch_size,
            "lr": lr,
            "weight_decay": weight_decay,
            "init": init,
            "train": train,
            "sampling": sampling,
            "paths": paths,
            "rate_images": rate_images,
            "calibration_images": calibration_images,
            "max_rows": max_rows,
            "stored_features": bool(stored),
        }
        | ({"mix": mix} if mix else {})
        | ({"error": error} if error != "nmse" else {})
    )
    only = list(range(count)) if stage is None else [stage - 1]
    job = None
    done: dict[int, Stage] = {}
    if run is not None:
        facts: dict[str, Any] = {
            "space": net.space.hash,
            "data": data.fingerprint,
            "teacher": teacher.fingerprint,
            "taps": [f"{tap.path} {tap.size}>{tap.student_size}" for tap in taps],
            "seed": seed,
            "supernet": weights_hash(net) if init == "supernet" else None,
            "precision": runtime.precision,
        }
        facts |= {f"blockwise.{key}": value for key, value in settings.items()}
        facts |= data.augmentation | dict(inputs or {})
        job = run.stage("blockwise", facts) if stage is None else _job(run, stage - 1, facts)
        if job.done:
            return read_ratings(job)
        if stage is None:
            done = _finished_jobs(run, facts, count)
    teacher.to(runtime.device)
    model = Blockwise(net, taps, init=init, seed=seed).to(runtime.device)
    calibration = gather(model, teacher, data.train.clean(BATCH, limit=calibration_images), runtime)
    calibration = model.rescale(calibration)
    images = min(rate_images or len(data.rate), len(data.rate))
    rating = gather(model, teacher, data.rate.clean(BATCH, limit=images), runtime)
    source: TargetSource = teacher
    if stored and run is not None:
        scales = model.input_scale.tolist()[1:] + [1.0], model.target_scale.tolist()
        run.say(f"teacher's features: {stored / 1e9:.2f} GB in {run.path / 'teacher' / 'features'}")
        source = StageFeatureFiles(teacher, data, run.path / "teacher" / "features", scales)
    for index, other in done.items():
        load_weights(model.part(index), other.folder / "weights.safetensors")
    begun = job.load() if job is not None else None
    if begun is not None:  # what is trained together stays so, whatever jobs have ended since
        done = {index: other for index, other in done.items() if f"stage_{index + 1}" not in begun}
    if job is not None:
        for index, other in done.items():
            for name in ("half", "stage") if epochs > 1 else ("stage",):
                job.write_frame(f"{name}_{index + 1}.csv", other.read_frame(f"{name}_{index + 1}.csv"))
    marks = {"space": mark(net.space.name, net.space.hash), "teacher": mark(teacher.name, teacher.fingerprint)}
    rater = Rater(model, data, calibration, rating, max_rows, ERRORS[error], only, job, marks)
    half: list[pd.DataFrame] = []

    def half_time(epoch: int) -> None:
        if epoch == epochs // 2:
            half.extend(rater.rate("half", min(images, HALF_TIME_IMAGES)))

    if rest := [index for index in only if index not in done]:
        train_blockwise(
            model,
            source,
            data,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            weight_decay=weight_decay,
            train=train,
            sampling=sampling,
            paths=paths,
            mix=mix,
            seed=seed,
            only=rest,
            runtime=runtime,
            stage=job,
            after_epoch=half_time,
        )
    if job is not None:
        if stage is None:
            save_weights(model, job.folder / "adapters.safetensors")
        else:
            save_weights(model.part(stage - 1), job.folder / "weights.safetensors")
        if epochs > 1:  # rated in an earlier process when the training was resumed after half time
            half = [job.read_frame(f"half_{index + 1}.csv") for index in only]
    tables = rater.rate("stage", images)
    summary = rater.summarise(tables, half)
    if job is None:
        return tables
    job.write_frame("summary.csv", summary)
    rows = {str(index + 1): len(table) for index, table in zip(only, tables, strict=True)}
    job.finish({"rows": rows, "fingerprint": weights_hash(model if stage is None else model.part(stage - 1))})
    return read_ratings(job)


def _stored_bytes(taps: Sequence[Tap], data: Data, cache_gb: float, run: Run | None) -> int:
    """Return the size of the teacher's stored features, 0 where they are not to be stored."""
    if not 0 <= cache_gb < float("inf"):
        raise SettingError("blockwise.cache_gb", cache_gb, "0 (never) or more", "use blockwise.cache_gb=2")
    if run is None or data.train.views is None:
        return 0
    size = feature_bytes(taps, len(data.train), len(data.train.views))
    if cache_gb and size <= 1e9 * cache_gb:
        return size
    run.say(f"the teacher runs live: its features need {size / 1e9:.2f} GB, blockwise.cache_gb is {cache_gb:g}")
    return 0


def _job(run: Run, index: int, facts: Mapping[str, Any]) -> Stage:
    return run.stage(f"blockwise/stage_{index + 1}", {**facts, "blockwise.stage": index + 1})


def _finished_jobs(run: Run, facts: Mapping[str, Any], count: int) -> dict[int, Stage]:
    """Open the jobs of single stages that have ended; one of other inputs is refused."""
    begun = [i for i in range(count) if (run.path / f"blockwise/stage_{i + 1}/stage.json").exists()]
    jobs = {index: _job(run, index, facts) for index in begun}
    return {index: job for index, job in jobs.items() if job.done}


def read_ratings(stage: Stage) -> list[pd.DataFrame]:
    """Read the tables of a finished rating, whole.

    Args:
        stage: the folder ``blockwise`` of a run, or that of one stage's job.

    Returns:
        One table a stage.

    Raises:
        SettingError: a table is damaged.
    """
    tables = []
    for number, rows in stage.facts["rows"].items():
        table = stage.read_frame(f"stage_{number}.csv")
        if len(table) != rows or "images" not in table or table["images"].isna().any():
            legal = f"the table of {rows} rows that nas_kd wrote"
            mend = f"delete {stage.folder} and give the same command again"
            raise SettingError("run", str(stage.folder / f"stage_{number}.csv"), legal, mend)
        tables.append(table)
    return tables


def mark(name: str, hash_: str) -> str:
    """Return what a table says of a space or a teacher: its name, and the hash that counts."""
    return f"{name} {hash_[:12]}"  # digits alone would be read back from a CSV as a number


def _check(
    data: Data,
    epochs: int,
    batch_size: int,
    init: str,
    sampling: str,
    error: str,
    paths: int | None,
    rate_images: int | None,
    calibration_images: int,
    max_rows: int,
) -> None:
    check_epochs("blockwise", epochs, batch_size, data.train)
    words = {"init": (init, ("supernet", "scratch")), "sampling": (sampling, tuple(SAMPLINGS))}
    words["error"] = error, tuple(ERRORS)
    for name, (word, valid) in words.items():
        if word not in valid:
            raise SettingError(f"blockwise.{name}", word, " or ".join(valid), nearest(word, valid))
    least = {
        "paths": (paths, 1),
        "rate_images": (rate_images, 2),
        "calibration_images": (calibration_images, 2),
        "max_rows": (max_rows, 1),
    }
    for name, (value, low) in least.items():
        if value is not None and value < low:
            raise SettingError(f"blockwise.{name}", value, f"an integer of at least {low}")
    if len(data.rate) < 2:
        raise SettingError("data.rate", len(data.rate), "at least 2 images to score on", "use data.rate=0.05")
