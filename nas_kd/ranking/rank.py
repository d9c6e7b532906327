"""`rank`: train a sample of archs, score the same archs, and evaluate how well each score ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from nas_kd.analyse.measure import as_accuracy, worded
from nas_kd.config.keywords import takes
from nas_kd.config.kinds import checked
from nas_kd.config.measures import Measure, measure_named
from nas_kd.data import Data
from nas_kd.distill import Recipe, Task, task_of
from nas_kd.errors import SettingError
from nas_kd.ranking.chosen import chosen_scores
from nas_kd.ranking.config import RankConfig, RankSettings
from nas_kd.ranking.figure import rank_figure
from nas_kd.ranking.ground_truth import ground_truth, trainings_of
from nas_kd.ranking.plan import GROWN, earlier_sizes, keep_plan
from nas_kd.ranking.sample import archs_of, bands_of, draw_archs
from nas_kd.ranking.scoring import Prepared, kept_scores
from nas_kd.ranking.summary import joined, noise_table, summarise, verdict
from nas_kd.rate.scores import Score
from nas_kd.rate.scores.donna import MAX_TRAINED
from nas_kd.runs.files import atomic_write
from nas_kd.runs.lock import held
from nas_kd.runs.progress import Progress
from nas_kd.runs.run import Run
from nas_kd.runtime.device import Runtime
from nas_kd.runtime.seeds import alone
from nas_kd.searcher.budget import cost_settings
from nas_kd.space import ElasticSpace
from nas_kd.supernet import Supernet
from nas_kd.teacher import Teacher
from nas_kd.teacher.sources import TeacherLike, one_teacher
from nas_kd.train.blockwise_config import BlockwiseConfig, BlockwiseSettings
from nas_kd.train.many import TrainingSetup, check_rebuilt, train_many
from nas_kd.train.optim import check_optimizer
from nas_kd.train.plan import check_epochs
from nas_kd.train.retrain import checked_method

if TYPE_CHECKING:
    from typing_extensions import Unpack

# settings that may differ in later calls; the list of archs itself is compared
MAY_CHANGE = ("scores", "primary", "control", "seeds", "train", "resamples", "archs")


class RankResult(NamedTuple):
    """The result of a ranking.

    Args:
        summary: one row per score, see ``nas_kd.ranking.summary.summarise``.
        noise: one row per scope, see ``noise_table``.
        truth: the ground truth, one row per arch and seed.
        scores: one row per score and arch.
        archs: the sample.
        verdict: sentences.
    """

    summary: pd.DataFrame
    noise: pd.DataFrame
    truth: pd.DataFrame
    scores: pd.DataFrame
    archs: pd.DataFrame
    verdict: list[str]


@takes(RankConfig)
@checked
@alone
def rank(
    space: ElasticSpace,
    teacher: TeacherLike | Callable[[], Teacher],
    data: Data,
    config: RankConfig | None = None,
    *,
    run: Run | str | Path | None,
    net: Supernet | Callable[[], Supernet] | None = None,
    blockwise: BlockwiseConfig | BlockwiseSettings | None = None,
    workers: int = 1,
    helps: bool = False,
    task: Task | None = None,
    seed: int = 0,
    runtime: Runtime | None = None,
    **settings: Unpack[RankSettings],
) -> RankResult:
    """Train a sample of archs standalone, score the same archs, and evaluate how well each score ranks them.

    Calling again resumes; any number of processes can make the same call for one folder, and share the trainings.
    Later calls can add seeds, archs and scores; everything else is fixed by the first call.

    Args:
        teacher: the teacher of the trained archs and of the scores, or a function that returns it.
        data: archs are trained on ``train`` and evaluated on ``select`` and ``test``; scores use ``rate``.
        config: the settings; keywords replace some of them.
        run: run folder; the tables are written to ``rank`` in it.
        net: the in-place distilled supernet, or a function that returns it.
        blockwise: settings of ``rate_blockwise``.
        workers: number of processes for the trainings, on a CPU.
        helps: only share the trainings of a ranking that another process runs.
        task: label loss, metric and agreement; None is that of the data.
        seed: seed of the sample and of the scores.

    Returns:
        All tables; further workers get the ground truth and the archs alone. The folder has archs.csv, truth.csv,
        scores.csv, noise.csv, summary.csv and summary.svg, and the plan as plan.json.

    Raises:
        SettingError: a setting is out of range or differs from that of the folder, its scores belong to another
            supernet or other stages, or there is nothing to help.

    Source: the protocol follows the comparisons in BossNAS and Blox, with additional controls.
    """
    config = RankConfig.of(config, settings).fitted(len(data.train))
    config = config.settled(inherited=space.pretrained, texts=data.tokens is not None)
    check_optimizer("rank.optimizer", str(config.optimizer))
    runtime = runtime or Runtime()
    run = _run(run)
    chosen, main, base = chosen_scores(config, space, texts=data.tokens is not None, seed=seed)
    own_task = {} if task is None else {f"rank.{name}": value for name, value in task.facts.items()}
    task = task or task_of(data)
    _check(data, config, chosen, net, space)
    _check_stored(config.method, checked_method(config.method, task, data.num_classes).recipe)
    cost = cost_settings(space, data)
    folder = run.path / "rank"
    before = earlier_sizes(folder, config)
    drawn = draw_archs(config, space, seed, cost, before)
    teacher = one_teacher(teacher, "rank")
    teacher.bind(data)
    if any("features" in score.needs for score in chosen):
        teacher.match(space, data.resolution)  # fails here for unmatched stages, not after hours of training
    facts: dict[str, Any] = {
        "space": space.hash,
        "data": data.fingerprint,
        "teacher": teacher.fingerprint,
        "seed": seed,
        "precision": runtime.precision,
        "primary": main.name,
        "control": base.name,
    }
    unsaid = ("optimizer",) if config.optimizer == "sgd" else ()  # as in `RankConfig.training`
    facts |= config.record(*MAY_CHANGE, *unsaid) | {"rank.bands": bands_of(config, space, cost)} | data.augmentation
    facts |= own_task | ({GROWN: before} if before else {})
    table = keep_plan(folder, facts, drawn, create=not helps)
    archs = archs_of(table)
    check_rebuilt(space, data, run)
    # one process runs the teacher, the others find its logits
    with held(folder / "claims" / "answers.lock", wait=True):
        cache = teacher.cached(data, run, epochs=config.epochs)
    if not cache.shared:
        expected = "an augmentation with cached views, so that all archs get the same targets"
        raise SettingError("data.views", data.augmentation.get("data.views"), expected, "use data.views=8")
    cache.split_logits("test", data)  # now: worker processes only have stored logits
    stages = blockwise if isinstance(blockwise, BlockwiseConfig) else BlockwiseConfig(**(blockwise or {}))
    prepared = Prepared(space, teacher, data, net, stages, run, runtime, seed, task)
    # students of a teacher's space inherit its weights, as they do in the end
    setup = TrainingSetup(cache, data, space, run, runtime, prepared.net() if space.pretrained else None, task)
    shared = trainings_of(archs, config.seeds, setup, config, run)
    if config.train or helps:
        processes = setup.processes(workers)
        total = len(shared.trainings)
        with Progress("ground truth", total, done=shared.recorded(), unit="trainings", run=run) as progress:
            with shared.watched(progress):
                train_many([shared] * processes, workers=processes)
    measure = measure_named(task.measure)
    truth = ground_truth(run, measure.name).frame()
    truth = truth[truth["seed"] < config.seeds]
    if len(truth) < len(shared.trainings):
        trained = truth["key"].nunique()
        run.log_message(
            f"ground truth: {len(truth)} of {len(shared.trainings)} trainings, of {trained} of {len(archs)} archs"
        )
    if helps:
        return RankResult(pd.DataFrame(), pd.DataFrame(), truth, pd.DataFrame(), table, [])
    with held(folder / "claims" / "scores.lock", wait=True):
        found = kept_scores(
            chosen,
            archs,
            as_accuracy(truth, measure),
            folder,
            prepared,
            cache,
            config,
        )
        if prepared.blockwise.init != "scratch":  # then the stages start from the supernet's weights
            needs = found["needs"].astype(object).fillna("")
            found["needs"] = needs.str.replace("blockwise", "blockwise supernet")
        return _judge(
            table,
            truth,
            found,
            folder,
            run,
            primary=main.name,
            control=base.name,
            resamples=config.resamples,
            measure=measure,
        )


def _run(run: Run | str | Path | None) -> Run:
    made = Run.of(run)
    if made is None:
        raise SettingError("run", None, "a folder for the trainings", "pass run=")
    return made


def _check(data: Data, config: RankConfig, scores: Sequence[Score], net: object, space: ElasticSpace) -> None:
    check_epochs("rank", config.epochs, config.batch_size, data.train)
    for name in ("select", "rate"):
        if len(getattr(data, name)) < 2:
            raise SettingError(
                f"data.{name}", len(getattr(data, name)), data.spoken("at least 2 images"), f"use data.{name}=0.1"
            )
    using = [score.name for score in scores if score.needs & {"supernet", "blockwise"}]
    if net is None and (using or space.pretrained):
        expected = f"a supernet, for {', '.join(using)}"
        raise SettingError("net", None, expected, "pass net=, or choose other scores")


def _check_stored(method: str, recipe: Recipe) -> None:
    """Check that a method can be taught by stored logits."""
    if recipe.needs_target_features or recipe.live:
        expected = "a method that only uses stored logits"
        raise SettingError("rank.method", method, expected, "use rank.method=kd")


def preparation_minutes(run: Run, truth: pd.DataFrame) -> dict[str, float]:
    """Return the CPU minutes of what scores need: supernet, stages, and the archs that a regression is fitted to.

    Older runs have only wall seconds in timing.csv, which are used instead.
    """
    minutes = {"truth": MAX_TRAINED * float(truth.groupby("key")["cpu_seconds"].sum().mean()) / 60}
    timing = run.timing.frame()
    if len(timing):
        counted = "cpu_seconds" if "cpu_seconds" in timing else "seconds"
        minutes |= {str(name): float(value) / 60 for name, value in timing.groupby("stage")[counted].sum().items()}
    return minutes


def _judge(
    archs: pd.DataFrame,
    truth: pd.DataFrame,
    scores: pd.DataFrame,
    folder: Path,
    run: Run,
    *,
    primary: str,
    control: str,
    resamples: int,
    measure: Measure,
) -> RankResult:
    ranked = joined(archs, as_accuracy(truth, measure), scores)._replace(measure=measure)
    tops = archs[archs["group"].str.startswith("band ")].groupby("group")["macs"].max()
    summary = summarise(
        ranked,
        primary=primary,
        control=control,
        budgets=[float(macs) for macs in np.sort(tops)],
        resamples=resamples,
        preparation=preparation_minutes(run, truth),
    )
    noise = noise_table(ranked)
    sentences = verdict(ranked, summary, noise)
    atomic_write(folder / "noise.csv", noise.to_csv(index=False))
    atomic_write(folder / "summary.csv", summary.to_csv(index=False))
    atomic_write(folder / "summary.svg", worded(rank_figure(summary, noise), measure))
    for line in sentences:
        run.log_message(line)
    return RankResult(summary, noise, truth, scores, archs, sentences)
