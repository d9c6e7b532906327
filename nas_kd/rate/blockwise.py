"""Blockwise rating: train every stage on the teacher's features, then score every candidate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from nas_kd.config.keywords import takes
from nas_kd.config.kinds import checked
from nas_kd.data import Batch, Data
from nas_kd.distill.sampling import TwoViews
from nas_kd.errors import SettingError
from nas_kd.rate.errors import ERRORS
from nas_kd.rate.features import BATCH, gather
from nas_kd.rate.rater import Rater
from nas_kd.runs.run import Run
from nas_kd.runs.stage import Stage
from nas_kd.runtime.device import Runtime
from nas_kd.runtime.seeds import alone
from nas_kd.space.rows import check_size
from nas_kd.space.tables import finish_ratings, mark, read_ratings
from nas_kd.supernet import Supernet
from nas_kd.teacher import LiveSource, Tap, TargetSource, Teacher
from nas_kd.teacher.sources import one_teacher
from nas_kd.teacher.stored_features import StageFeatureFiles, feature_bytes
from nas_kd.train.blockwise import train_blockwise
from nas_kd.train.blockwise_config import BlockwiseConfig, BlockwiseSettings
from nas_kd.train.plan import check_epochs
from nas_kd.train.stage_average import NAME, StageAverage, own_taps
from nas_kd.train.stages import Blockwise, StageFeatures
from nas_kd.train.weights import load_weights, save_weights, weights_hash

if TYPE_CHECKING:
    from typing_extensions import Unpack

HALF_TIME_IMAGES = 512


@takes(BlockwiseConfig)
@checked
@alone
def rate_blockwise(
    net: Supernet,
    teacher: Teacher | None,
    data: Data,
    config: BlockwiseConfig | None = None,
    *,
    run: Run | str | Path | None = None,
    seed: int = 0,
    runtime: Runtime | None = None,
    **settings: Unpack[BlockwiseSettings],
) -> list[pd.DataFrame]:
    """Score every candidate of every stage by how well it reproduces the teacher's next feature.

    With ``stage`` one stage is a job of its own: jobs of several stages may run at once, end with the tables of a
    whole rating, and are taken over by it.

    Args:
        net: the supernet; a copy of it is trained.
        teacher: the teacher; it is bound to the data, and its taps are chosen. None with ``source="average"``, which
            asks no teacher: the tables have no column ``teacher`` then, and fit a search with any.
        data: the data; ``train`` is trained on without labels, ``rate`` is scored on.
        config: the settings; keywords replace in it.
        run: run folder; the same call resumes it.
        seed: seed of order, augmentation, adapters and paths.
        runtime: device and precision; default: what the machine has.

    Returns:
        One table per stage (of ``stage`` alone, where it is given), one row per (input width, candidate):
        ``score`` (``error`` of the stage, lower is better, additive over stages), ``macs``, ``params``,
        ``in_width``, ``out_width``, ``candidate`` (index in the stage's ``candidates()``), ``label`` and
        ``images`` (rating images behind the score), and ``space`` and ``teacher``, with names and hashes, by which
        a search checks the table. Where the stem or the head is elastic, the first table has
        a column ``stem``, the last one ``head`` (see `rows_of`); a head's choices share the score, because it
        comes after what is compared.

    Raises:
        SettingError: a setting is out of range, the teacher does not fit, or the run was made with others.

    Source: DNA (Li et al. 2020; its error is ``relative_l1``); the scores: DONNA (Moons et al. 2021; ``nsr``), Puzzle
        (Bercovich et al. 2024; ``nmse``). Which one ranks best is measured in experiments/rank.
        ``source="average"``: DNA++ (Wang et al. 2024, arXiv 2403.01326).
    """
    config = BlockwiseConfig.of(config, settings).fitted(len(data.train))
    given = None if config.source == "average" else one_teacher(teacher, "rate stages")
    net.check_data(data.in_chans, data.num_classes)
    check_size(net.space, data.resolution)
    check_epochs("blockwise", config.epochs, config.batch_size, data.train)
    if len(data.rate) < 2:
        raise SettingError("data.rate", len(data.rate), "at least 2 images to score on", "use data.rate=0.05")
    stage = config.stage
    count = len(net.space.stages)
    if stage is not None and stage > count:
        raise SettingError("blockwise.stage", stage, f"1 to {count}, a stage of {net.space.name}", "count from 1")
    if given is None:
        taps = own_taps(net.space, data.resolution)
        TwoViews(data.train)  # before the first epoch: there are two
    else:
        taps = given.bind(data).match(net.space, data.resolution)
    run = Run.of(run)
    runtime = runtime or Runtime()
    stored = 0 if given is None else _stored_bytes(taps, data, config.cache_gb, run)
    only = list(range(count)) if stage is None else [stage - 1]
    job = None
    done: dict[int, Stage] = {}
    if run is not None:
        facts: dict[str, Any] = {
            "space": net.space.hash,
            "data": data.fingerprint,
            "teacher": NAME if given is None else given.fingerprint,
            "taps": [f"{tap.path} {tap.size}>{tap.student_size}" for tap in taps],
            "seed": seed,
            "supernet": weights_hash(net) if config.init == "supernet" else None,
            "precision": runtime.precision,
        }
        facts |= config.record("stage", "cache_gb", *config.hidden) | {"blockwise.stored_features": bool(stored)}
        facts |= data.augmentation
        job = run.stage("blockwise", facts) if stage is None else _job(run, stage - 1, facts)
        if job.done:
            return read_ratings(job)
        if stage is None:
            done = _finished_jobs(run, facts, count)
    model = Blockwise(net, taps, init=config.init, seed=seed).to(runtime.device)
    average = StageAverage(net, model, config.average_decay) if given is None else None
    live: LiveSource = average or given  # type: ignore[assignment]  # one of the two
    live.to(runtime.device)
    images = min(config.rate_images or len(data.rate), len(data.rate))

    def calibrating() -> Iterator[Batch]:
        return data.train.clean(BATCH, limit=config.calibration_images)

    def rating_images() -> list[StageFeatures]:
        return gather(model, live, data.rate.clean(BATCH, limit=images), runtime)

    calibration = model.rescale(gather(model, live, calibrating(), runtime))
    rating = rating_images()
    source: TargetSource = live
    if stored and run is not None and given is not None:
        scales = model.input_scale.tolist()[1:] + [1.0], model.target_scale.tolist()
        run.log_message(f"teacher's features: {stored / 1e9:.2f} GB in {run.path / 'teacher' / 'features'}")
        source = StageFeatureFiles(given, data, run.path / "teacher" / "features", scales)
    for index, other in done.items():
        load_weights(model.part(index), other.folder / "weights.safetensors")
    started = job.load() if job is not None else None
    if started is not None:  # what is trained together stays so, whatever jobs have ended since
        done = {index: other for index, other in done.items() if f"stage_{index + 1}" not in started}
    if job is not None:
        for index, other in done.items():
            for name in ("half", "stage") if config.epochs > 1 else ("stage",):
                job.write_frame(f"{name}_{index + 1}.csv", other.read_frame(f"{name}_{index + 1}.csv"))
    marks = {"space": mark(net.space.name, net.space.hash)}
    marks |= {} if given is None else {"teacher": mark(given.name, given.fingerprint)}
    rater = Rater(model, data, calibration, rating, config.max_rows, ERRORS[config.error], only, job, marks)
    half: list[pd.DataFrame] = []

    def half_time(epoch: int) -> None:
        if epoch == config.epochs // 2 and average is None:  # at half time the last stages have not begun
            half.extend(rater.rate("half", min(images, HALF_TIME_IMAGES)))

    if rest := [index for index in only if index not in done]:
        train_blockwise(
            model,
            source,
            data,
            config,
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
        # rated in an earlier process when the training was resumed after half time
        if config.epochs > 1 and average is None:
            half = [job.read_frame(f"half_{index + 1}.csv") for index in only]
    if average is not None:  # it has changed since
        average.settle(batch.x.to(runtime.device) for batch in calibrating())
        rater = replace(rater, calibration=gather(model, live, calibrating(), runtime), rating=rating_images())
    tables = rater.rate("stage", images)
    summary = rater.summarise(tables, half)
    if job is None:
        return tables
    job.write_frame("summary.csv", summary)
    rated = {index + 1: table for index, table in zip(only, tables, strict=True)}
    trained = weights_hash(model if stage is None else model.part(stage - 1))
    return finish_ratings(job, rated, {"fingerprint": trained})


def _stored_bytes(taps: Sequence[Tap], data: Data, cache_gb: float, run: Run | None) -> int:
    """Return the size of the teacher's stored features, 0 where they are not to be stored."""
    if run is None or data.train.views is None:
        return 0
    size = feature_bytes(taps, len(data.train), len(data.train.views))
    if cache_gb and size <= 1e9 * cache_gb:
        return size
    run.log_message(f"the teacher runs live: its features need {size / 1e9:.2f} GB, blockwise.cache_gb is {cache_gb:g}")
    return 0


def _job(run: Run, index: int, facts: Mapping[str, Any]) -> Stage:
    return run.stage(f"blockwise/stage_{index + 1}", {**facts, "blockwise.stage": index + 1})


def _finished_jobs(run: Run, facts: Mapping[str, Any], count: int) -> dict[int, Stage]:
    """Open the jobs of single stages that have ended; one of other inputs is refused."""
    started = [i for i in range(count) if (run.path / f"blockwise/stage_{i + 1}/stage.json").exists()]
    jobs = {index: _job(run, index, facts) for index in started}
    return {index: job for index, job in jobs.items() if job.done}
