"""From a configuration to its stages: each opens what it needs, does its work once and says what it did."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from nas_kd.config import Config
from nas_kd.data import Data, load_data
from nas_kd.distill import Classification, Distiller
from nas_kd.errors import SettingError
from nas_kd.files import atomic_json, read_json
from nas_kd.rate import SubnetScorer, rate_blockwise
from nas_kd.run import Run
from nas_kd.runtime import Progress, Runtime, seed_for, seeded
from nas_kd.space import ElasticSpace, load_space
from nas_kd.supernet import Supernet
from nas_kd.teacher import Teacher, ViewCache, describe_taps, load_teacher
from nas_kd.train import train_supernet, train_teacher
from nas_kd.verbs.budget import Budget, caps_of, cost_settings
from nas_kd.verbs.retrain import teacher_logits
from nas_kd.verbs.search import SearchResult, search


class Pipeline:
    """The objects of one configuration, each made when it is first needed.

    Args:
        config: the settings.

    Raises:
        SettingError: the run folder cannot be used.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        assert config.run is not None  # the command line fills it in
        self.run = Run(config.run)

    @cached_property
    def runtime(self) -> Runtime:
        """Device, precision and threads."""
        runtime = Runtime(self.config.device, self.config.precision, self.config.threads)
        self.run.record_env(runtime.env())
        return runtime

    @cached_property
    def space(self) -> ElasticSpace:
        """The search space, recorded in the run."""
        space = load_space(self.config.space)
        self.run.record_space(space.describe())
        return space

    @cached_property
    def data(self) -> Data:
        """The data set, recorded in the run."""
        settings = asdict(self.config.data)
        data = load_data(settings.pop("train"), device=str(self.runtime.device), **settings)
        self.run.record_data(data.frame())
        sizes = ", ".join(f"{split.name} {len(split)}" for split in data.splits)
        shape = f"{data.in_chans} x {data.resolution} x {data.resolution}"
        self.run.say(f"data: {self.config.data.train}, {data.num_classes} classes, {shape}; images: {sizes}")
        return data

    @cached_property
    def cost(self) -> dict[str, int]:
        """What ``space.cost`` needs besides an arch."""
        return cost_settings(self.data)

    @cached_property
    def caps(self) -> dict[str, int]:
        """The budget as numbers; raises when it is infeasible."""
        return caps_of(self.space, self.data, self.config.search.max_macs, self.config.search.max_params)

    @cached_property
    def budget(self) -> Budget:
        """The budget, with the caps and the latency that was measured."""
        latency = self.config.search.max_latency_ms
        return Budget(self.space, self.cost, self.caps, latency, self.runtime.device, self.run)

    @cached_property
    def teacher(self) -> Teacher:
        """The teacher, trained first when the settings say so, bound to the data, its taps chosen."""
        settings = self.config.teacher
        if settings.epochs:
            teacher = train_teacher(
                settings.model, self.data, run=self.run, epochs=settings.epochs, batch_size=settings.batch_size,
                lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay,
                warmup_epochs=settings.warmup_epochs, smoothing=settings.smoothing, checkpoint=settings.checkpoint,
                pretrained=settings.pretrained, stages=settings.stages, seed=self.config.seed, runtime=self.runtime,
            )  # fmt: skip
        else:
            teacher = load_teacher(
                settings.model, checkpoint=settings.checkpoint, num_classes=self.data.num_classes,
                in_chans=self.data.in_chans, stages=settings.stages, pretrained=settings.pretrained,
                mean=settings.mean, std=settings.std, resolution=self.data.resolution,
            )  # fmt: skip
        teacher = teacher.to(self.runtime.device).bind(self.data)
        teacher.match(self.space, self.data.resolution)
        return teacher

    @cached_property
    def cache(self) -> ViewCache | Teacher:
        """The teacher's answers on every cached view; the live teacher where views cannot be cached."""
        if self.data.train.views is None:
            self.run.say("the teacher answers live: this augmentation has no fixed views to cache")
            return self.teacher
        folder = self.run.path / "teacher" / "cache"
        todo = ViewCache.todo(folder, self.teacher, self.data)
        with Progress("teacher's answers", todo, unit="images", run=self.run) as progress:
            return ViewCache.open(folder, self.teacher, self.data, progress=progress)

    @cached_property
    def supernet(self) -> Supernet:
        """The in-place distilled supernet, trained when it is not yet."""
        settings = asdict(self.config.supernet)
        seeded(self.config.seed, "init", "supernet")
        net = Supernet(self.space, self.data.num_classes, self.data.in_chans)
        return train_supernet(
            net, self.data, run=self.run, task=Classification(settings.pop("smoothing")),
            teacher=self.cache if settings["teacher_weight"] > 0.0 else None,
            seed=self.config.seed, runtime=self.runtime, **settings,
        )  # fmt: skip

    @cached_property
    def tables(self) -> list[pd.DataFrame]:
        """The blockwise ratings, made when they are not yet."""
        settings = asdict(self.config.blockwise)
        settings.pop("score")  # there is one score so far
        return rate_blockwise(
            self.supernet, self.teacher, self.data, run=self.run, seed=self.config.seed, runtime=self.runtime,
            **settings,
        )  # fmt: skip

    @property
    def search_folder(self) -> str:
        """``search`` for the run's first budget, a folder below it for every other one."""
        first = self.run.path / "search" / "stage.json"
        latency = self.config.search.max_latency_ms
        inputs = read_json(first)["inputs"] if first.exists() else {}
        if not inputs or (inputs["search.caps"], inputs["search.max_latency_ms"]) == (self.caps, latency):
            return "search"
        parts = self.caps | ({} if latency is None else {"latency_ms": latency})
        named = "_".join(f"{name}_{cap}" for name, cap in parts.items()) or "unlimited"
        return f"search/{named}"

    @cached_property
    def result(self) -> SearchResult:
        """The search's result, made when it is not yet."""
        settings, training = self.config.search, self.training
        return search(
            self.supernet, self.cache, self.data, self.tables, max_macs=settings.max_macs,
            max_params=settings.max_params, max_latency_ms=settings.max_latency_ms,
            trials=settings.trials, sampler=settings.sampler, top=settings.top, epochs=settings.epochs,
            calibration_images=settings.calibration_images,
            rate_images=settings.rate_images, run=self.run, folder=self.search_folder, seed=self.config.seed,
            method=self.config.retrain.method, workers=self.config.workers, runtime=self.runtime,
            training=training | {"warmup_epochs": min(training["warmup_epochs"], settings.epochs / 4)},
        )  # fmt: skip

    @property
    def scorer(self) -> SubnetScorer:
        """Scores whole subnets as the search does."""
        settings, targets = self.config.search, teacher_logits(self.cache, "rate", self.data, self.runtime)
        assert targets is not None  # a Teacher and a ViewCache always give them
        return SubnetScorer(
            self.supernet, self.data, targets, task=Classification(), runtime=self.runtime,
            calibration_images=settings.calibration_images, rate_images=settings.rate_images,
        )  # fmt: skip

    @property
    def training(self) -> dict[str, Any]:
        """Arguments of ``retrain`` that short and full trainings share."""
        names = ("batch_size", "lr", "momentum", "weight_decay", "warmup_epochs", "clip_grad")
        return {name: getattr(self.config.retrain, name) for name in names}

    def check(self) -> None:
        """Find every mistake that can be found before the first epoch.

        Raises:
            SettingError: naming the first one.
        """
        Distiller(self.config.retrain.method)
        for name in ("supernet", "blockwise", "retrain"):
            batch = getattr(self.config, name).batch_size
            if batch > len(self.data.train):
                legal = f"at most {len(self.data.train)}, the number of training images"
                raise SettingError(f"{name}.batch_size", batch, legal)
        assert self.budget is not None  # made here, so that an infeasible budget is refused now
        self.run.record_config(self.config.to_yaml())  # last, so that another experiment's stays as it was


def stage_describe(config: Config) -> None:
    """Print the size and the costs of the space, and whether the budget is feasible."""
    space = load_space(config.space)
    settings = asdict(config.data)
    data = load_data(settings.pop("train"), **settings)
    for line in describe(space, data, config):
        print(line)


def describe(space: ElasticSpace, data: Data, config: Config) -> list[str]:
    """Word what is known of a space and a budget before anything is trained."""
    cost: dict[str, Any] = {
        "resolution": data.resolution, "in_chans": data.in_chans, "num_classes": data.num_classes
    }  # fmt: skip
    drawn = [space.cost(space.sample(seed_for("describe", index)), **cost) for index in range(1000)]
    ends = {"smallest": space.cost(space.smallest(), **cost), "largest": space.cost(space.largest(), **cost)}
    median = [int(np.median([c[i] for c in drawn])) for i in range(2)]
    stages = ", ".join(f"{stage.size} candidates" for stage in space.stages)
    lines = [
        f"space: {space.name}, {space.size:,} archs, {len(space.stages)} stages ({stages})",
        *(f"  {name}: {c.macs:,} MACs, {c.params:,} params" for name, c in ends.items()),
        f"  median of 1,000 random archs: {median[0]:,} MACs, {median[1]:,} params",
    ]
    caps = caps_of(space, data, config.search.max_macs, config.search.max_params)
    for index, name in enumerate(("macs", "params")):
        if name in caps:
            share = np.mean([c[index] <= caps[name] for c in drawn])
            low, high = ends["smallest"][index], ends["largest"][index]
            lines.append(
                f"budget: at most {caps[name]:,} {name} ({100 * caps[name] / high:.0f}% of the largest); feasible"
                f" from {low:,} ({100 * low / high:.0f}%); {100 * share:.0f}% of random archs keep it"
            )
    return lines


@contextmanager
def _opened(config: Config) -> Iterator[Pipeline]:
    """Open a run for one command alone, with every mistake found that can be found now."""
    pipeline = Pipeline(config)
    with pipeline.run.locked():
        pipeline.check()
        yield pipeline


def stage_teacher(config: Config) -> None:
    """Train or fine-tune the teacher."""
    if not config.teacher.epochs:
        legal = "an integer of at least 1 for this command"
        raise SettingError("teacher.epochs", config.teacher.epochs, legal, "give teacher.epochs")
    with _opened(config) as pipeline:
        pipeline.run.say(f"teacher: {pipeline.run.path / 'teacher' / 'weights.safetensors'}: {pipeline.teacher}")


def stage_supernet(config: Config) -> None:
    """Train the supernet."""
    with _opened(config) as pipeline:
        pipeline.run.say(f"supernet: {pipeline.supernet.space.name} in {pipeline.run.path / 'supernet'}")


def stage_blockwise(config: Config) -> None:
    """Rate every candidate of every stage against the teacher."""
    with _opened(config) as pipeline:
        _say_taps(pipeline)
        rows = ", ".join(str(len(table)) for table in pipeline.tables)
        pipeline.run.say(f"blockwise: rows a stage: {rows}; in {pipeline.run.path / 'blockwise'}")


def _say_taps(pipeline: Pipeline) -> None:
    for line in describe_taps(pipeline.teacher.taps or ()):
        pipeline.run.say(line)
    taps = [
        {
            "stage": number, "teacher_path": tap.path, "teacher_channels": tap.channels,
            "teacher_size": tap.size, "student_size": tap.student_size,
        }
        for number, tap in enumerate(pipeline.teacher.taps or (), 1)
    ]  # fmt: skip
    (pipeline.run.path / "teacher").mkdir(exist_ok=True)
    atomic_json(pipeline.run.path / "teacher" / "stages.json", taps)


def stage_search(config: Config) -> None:
    """Find the best architecture within the budget."""
    with _opened(config) as pipeline:
        best = pipeline.result.best
        total = pipeline.space.cost(best, **pipeline.cost)
        pipeline.run.say(f"found {best.key}: {best.label}; {total.macs:,} MACs, {total.params:,} params")


def stage_retrain(config: Config) -> None:
    """Retrain the found student and those it is compared with."""
    from nas_kd.verbs.students import retrain_students

    with _opened(config) as pipeline:
        retrain_students(pipeline)


def stage_report(config: Config) -> None:
    """Write the report of a run and print its table."""
    from nas_kd.analyse import report

    assert config.run is not None
    path = report(config.run)
    print(f"report: {path}")


def run_pipeline(config: Config) -> None:
    """Do everything in order, skipping what is done, and end with the table of results."""
    from nas_kd.verbs.students import print_table, retrain_students

    with _opened(config) as pipeline:
        for line in describe(pipeline.space, pipeline.data, config):
            pipeline.run.say(line)
        steps: list[tuple[str, Callable[[], Any]]] = [
            ("teacher", lambda: _say_taps(pipeline)),
            ("teacher's answers", lambda: pipeline.cache),
            ("supernet", lambda: pipeline.supernet),
            ("blockwise", lambda: pipeline.tables),
            ("search", lambda: pipeline.result),
            ("retrain", lambda: retrain_students(pipeline)),
        ]
        for number, (name, step) in enumerate(steps, 1):
            pipeline.run.say(f"[{number}/{len(steps)}] {name}")
            step()
        stage_report(config)
        print_table(pipeline)
