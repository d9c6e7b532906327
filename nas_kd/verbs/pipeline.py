"""From a configuration to its stages: each opens what it needs, does its work once and says what it did."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import cached_property
from typing import Any

import pandas as pd

from nas_kd.config import Config
from nas_kd.data import Data, load_data
from nas_kd.distill import Classification, Recipe
from nas_kd.errors import SettingError
from nas_kd.files import read_json
from nas_kd.processes import in_turn, part
from nas_kd.rate import SubnetScorer, rate_blockwise
from nas_kd.rate.rows import check_size
from nas_kd.run import Run
from nas_kd.runtime import Runtime, seed_for
from nas_kd.space import ElasticSpace, load_space
from nas_kd.supernet import Supernet
from nas_kd.teacher import Teacher, ViewCache, load_teacher
from nas_kd.train import train_supernet, train_teacher
from nas_kd.train.loop import check_epochs
from nas_kd.train.manner import Manner
from nas_kd.verbs.budget import Budget, caps_of, cost_settings
from nas_kd.verbs.retrain import checked_method, stored_answers, teacher_logits
from nas_kd.verbs.search import SearchResult, search

NOT_HERE = {"takd": "assistants", "multi_teacher": "a second teacher", "soft_tree": "a tree as its student"}


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
    def together(self) -> Runtime:
        """Device, precision and threads, and the other processes of torchrun."""
        config = self.config
        runtime = Runtime(config.device, config.precision, config.threads, config.on_nan)
        self.run.record_env(runtime.env())
        return runtime

    @cached_property
    def runtime(self) -> Runtime:
        """The same for one process by itself: the first does all but the training of the supernet alone."""
        return self.together.alone()

    @cached_property
    def space(self) -> ElasticSpace:
        """The search space."""
        return load_space(self.config.space)

    @cached_property
    def data(self) -> Data:
        """The data set."""
        settings = asdict(self.config.data)
        data = load_data(settings.pop("train"), device=str(self.runtime.device), **settings)
        sizes = ", ".join(f"{split.name} {len(split)}" for split in data.splits)
        shape = f"{data.in_chans} x {data.resolution} x {data.resolution}"
        self.run.say(f"data: {self.config.data.train}, {data.num_classes} classes, {shape}; images: {sizes}")
        if data.unreadable:
            names = ", ".join(name for name, _ in data.unreadable[:5]) + (" ..." if len(data.unreadable) > 5 else "")
            self.run.say(f"data: {len(data.unreadable)} unreadable images are left out, see data.csv: {names}")
        return data

    @cached_property
    def cost(self) -> dict[str, int]:
        """What ``space.cost`` needs besides an arch."""
        return cost_settings(self.space, self.data)

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
    def unmatched(self) -> Teacher:
        """The teacher, trained first when the settings say so, bound to the data, perhaps without taps."""
        settings = self.config.teacher
        if settings.model is None:
            raise SettingError("teacher.model", None, "a network that teaches", "give teacher.model")
        if settings.epochs:
            assert self._untrained  # raises now when a name in teacher.stages is wrong
            teacher = train_teacher(
                settings.model, self.data, run=self.run, epochs=settings.epochs, batch_size=settings.batch_size,
                lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay,
                warmup_epochs=settings.warmup_epochs, smoothing=settings.smoothing, checkpoint=settings.checkpoint,
                pretrained=settings.pretrained, stages=settings.stages, seed=self.config.seed, runtime=self.runtime,
                **Manner.of(settings).chosen,
            )  # fmt: skip
        else:
            teacher = load_teacher(
                settings.model, checkpoint=settings.checkpoint, num_classes=self.data.num_classes,
                in_chans=self.data.in_chans, stages=settings.stages, pretrained=settings.pretrained,
                mean=settings.mean, std=settings.std, resolution=self.data.resolution,
            )  # fmt: skip
        teacher = teacher.to(self.runtime.device).bind(self.data)
        self.run.record_teacher({"name": teacher.name, "fingerprint": teacher.fingerprint})
        return teacher

    @cached_property
    def _untrained(self) -> Teacher:
        """The network that will be trained to be the teacher, to find mistakes before that."""
        settings = self.config.teacher
        assert settings.model is not None  # whoever asks has looked
        return load_teacher(
            settings.model, num_classes=self.data.num_classes, in_chans=self.data.in_chans,
            stages=settings.stages, resolution=self.data.resolution,
        ).bind(self.data)  # fmt: skip

    @cached_property
    def teacher(self) -> Teacher:
        """The teacher, with a tap for each stage of the space where its features are wanted."""
        if self.config.engine != "exact" and not self._runs_teacher():
            return self.unmatched
        if self.config.teacher.epochs:
            self._untrained.match(self.space, self.data.resolution)  # before hours of training
        self.unmatched.match(self.space, self.data.resolution)
        return self.unmatched

    @cached_property
    def cache(self) -> ViewCache | Teacher:
        """The teacher's answers on every cached view; the live teacher where views cannot be cached."""
        return stored_answers(self.teacher, self.data, self.run, folder=self.config.teacher.cache)

    @property
    def taught(self) -> bool:
        """Whether there is a teacher."""
        return self.config.teacher.model is not None

    @property
    def teaching(self) -> ViewCache | Teacher | None:
        """What teaches the students: the stored answers, the live teacher where features are wanted, or nothing."""
        if not self.taught:
            return None
        mixed = Manner.of(self.config.retrain).mixes and self.recipe.needs_teacher
        return self.teacher if self._runs_teacher() or mixed else self.cache

    @cached_property
    def recipe(self) -> Recipe:
        """What the students' method is made of."""
        settings = self.config.retrain.method_settings
        return checked_method(self.config.method, Classification(), self.data.num_classes, settings).recipe

    def _runs_teacher(self) -> bool:
        """Tell whether the students' method needs a teacher that is run, for its features or other images."""
        return self.recipe.needs_teacher and (self.recipe.needs_target_features or self.recipe.live)

    @cached_property
    def supernet(self) -> Supernet:
        """The in-place distilled supernet, trained when it is not yet, by all processes; then they part."""
        settings = asdict(self.config.supernet)
        start = seed_for(self.config.seed, "init", "supernet")
        transform = settings.pop("kernel_transform")
        runtime = self.together
        with in_turn():  # the first finds mistakes, may download data and has the teacher answer
            net = Supernet(
                self.space, self.data.num_classes, self.data.in_chans, seed=start, kernel_transform=transform
            )
            teacher = self.cache if settings["teacher_weight"] > 0.0 else None
        train_supernet(
            net, self.data, run=self.run, task=Classification(settings.pop("smoothing")), teacher=teacher,
            seed=self.config.seed, runtime=runtime, **settings,
        )  # fmt: skip
        part()
        return net

    @cached_property
    def tables(self) -> list[pd.DataFrame]:
        """The blockwise ratings, made when they are not yet."""
        return self.rated(None)

    def rated(self, stage: int | None) -> list[pd.DataFrame]:
        """Rate one stage, from 1, or all."""
        settings = asdict(self.config.blockwise) | {"stage": stage}
        return rate_blockwise(
            self.supernet, self.teacher, self.data, run=self.run, seed=self.config.seed, runtime=self.runtime,
            **settings,
        )  # fmt: skip

    @property
    def _first_search(self) -> dict[str, Any]:
        path = self.run.path / "search" / "stage.json"
        return read_json(path, ("inputs",))["inputs"] if path.exists() else {}

    @property
    def other_method(self) -> str:
        """A name for the students' method where it is not that of the run's first search, else nothing."""
        first, method, settings = self._first_search, self.config.method, self.config.retrain.method_settings
        kept = first.get("search.method"), first.get("search.training", {}).get("method_settings", {})
        if first.get("search.engine") != "exact" or kept == (repr(method), settings):
            return ""
        terms = [method] if isinstance(method, str) else [f"{name}_{weight:g}" for name, weight in method]
        return "_".join([*terms, *(f"{name}_{value}" for name, value in settings.items())])

    @property
    def search_folder(self) -> str:
        """``search`` for the run's first engine, method and budget, a folder below it for every other three."""
        latency = self.config.search.max_latency_ms
        first, method = self._first_search, self.other_method
        names = ("search.engine", "search.caps", "search.max_latency_ms")
        engine, given = self.config.engine, (self.config.engine, self.caps, latency)
        if not first or (tuple(first.get(name) for name in names) == given and not method):
            return "search"
        limits = self.caps | ({} if latency is None else {"latency_ms": latency})
        named = "_".join(f"{name}_{cap}" for name, cap in limits.items()) or "unlimited"
        parts = ["" if engine == first.get("search.engine") else engine, method, named]
        return "search/" + "_".join(part for part in parts if part)

    @cached_property
    def result(self) -> SearchResult:
        """The search's result, made when it is not yet."""
        return self.searched()

    def searched(self, worker: bool = False) -> SearchResult:
        """Search, or help a search that is going; only the exact engine searches with the teacher."""
        settings, engine = self.config.search, self.config.engine
        guided = engine == "exact"
        training = self.training
        training["warmup_epochs"] = min(training["warmup_epochs"], settings.epochs / 4)
        if milestones := training.pop("milestones", ()):  # at the same shares of the shorter training
            training["milestones"] = [epoch * settings.epochs / self.config.retrain.epochs for epoch in milestones]
        if guided and self.config.retrain.method_settings:
            training["method_settings"] = self.config.retrain.method_settings
        return search(
            self.supernet, self.teaching if guided else None, self.data, self.tables if guided else None,
            engine=engine, max_macs=settings.max_macs,
            max_params=settings.max_params, max_latency_ms=settings.max_latency_ms,
            trials=settings.trials, sampler=settings.sampler, top=settings.top, epochs=settings.epochs,
            calibration_images=settings.calibration_images,
            rate_images=settings.rate_images, run=self.run, folder=self.search_folder, seed=self.config.seed,
            method=self.config.method if guided else "ce", workers=self.config.workers, runtime=self.runtime,
            training=training, storage=settings.storage, worker=worker,
        )  # fmt: skip

    @property
    def scorer(self) -> SubnetScorer:
        """Scores whole subnets as the search does, with a teacher against it too."""
        settings = self.config.search
        targets = teacher_logits(self.cache, "rate", self.data, self.runtime) if self.taught else None
        return SubnetScorer(
            self.supernet, self.data, targets, task=Classification(), runtime=self.runtime,
            calibration_images=settings.calibration_images, rate_images=settings.rate_images,
        )  # fmt: skip

    @property
    def training(self) -> dict[str, Any]:
        """Arguments of ``retrain`` that short and full trainings share."""
        names = ("batch_size", "lr", "momentum", "weight_decay", "warmup_epochs", "clip_grad")
        settings = self.config.retrain
        return {name: getattr(settings, name) for name in names} | Manner.of(settings).chosen

    def _check_method(self) -> None:
        method = self.config.method
        assert self.data.num_classes  # opened here, so that a mistake of the data is not taken for one of the method
        try:
            recipe = self.recipe
        except SettingError as error:
            setting = error.field.removeprefix(f"{method}.")
            own = setting in self.config.retrain.method_settings
            field = f"retrain.method_settings.{setting}" if own else "retrain.method"
            raise SettingError(field, error.value if own else method, error.legal, error.mend) from error
        if not self.taught and recipe.needs_teacher:
            mend = "give teacher.model, or retrain.method=ce"
            raise SettingError("retrain.method", method, "ce or a method without a teacher", mend)
        if isinstance(method, str) and method in NOT_HERE:
            raise SettingError("retrain.method", method, f"a method without {NOT_HERE[method]}", "use nas_kd.retrain")

    def check(self, keep: bool = True) -> None:
        """Find every mistake that can be found before the first epoch.

        Args:
            keep: write into the run what it is made of; who helps another process leaves that to it.

        Raises:
            SettingError: naming the first one.
        """
        self._check_method()
        own, theirs = self.config.retrain, self.config.teacher
        Manner.of(own).check("retrain", self.recipe, epochs=own.epochs, batch_size=own.batch_size)
        if theirs.epochs:
            labels = checked_method("ce", Classification(), self.data.num_classes).recipe
            Manner.of(theirs).check("teacher", labels, epochs=theirs.epochs, batch_size=theirs.batch_size)
        for name, least in (("rate", 2), ("select", 1)):
            if len(getattr(self.data, name)) < least:
                legal = f"a share that holds at least {least} images of train"
                given = getattr(self.config.data, name)
                raise SettingError(f"data.{name}", given, legal, f"use data.{name}=0.05")
        for name in ("supernet", "blockwise", "retrain") if self.taught else ("supernet", "retrain"):
            batch = getattr(self.config, name).batch_size
            if batch > len(self.data.train):
                legal = f"at most {len(self.data.train)}, the number of training images"
                raise SettingError(f"{name}.batch_size", batch, legal)
        supernet = self.config.supernet
        check_epochs(
            "supernet", supernet.epochs, supernet.batch_size, self.data.train, supernet.accumulate, self.together.world
        )
        if self.config.engine == "exact":
            check_size(self.space, self.data.resolution)
        assert self.budget is not None  # made here, so that an infeasible budget is refused now
        if not keep:
            return
        self.run.record_space(self.space.describe())
        self._record_data()
        whole = replace(self.config, blockwise=replace(self.config.blockwise, stage=None))
        self.run.record_config(whole.to_yaml())  # last, so that another experiment's stays as it was

    def _record_data(self) -> None:
        try:
            self.run.record_data(self.data.frame())
        except SettingError as error:  # say which setting it was, where a setting it was
            import yaml

            kept, now = yaml.safe_load(self.run.config_text() or "{}").get("data", {}), asdict(self.config.data)
            changed = [name for name in now if name in kept and kept[name] != now[name]]
            if not changed:
                raise
            names = ", ".join(f"data.{name}" for name in changed)
            legal = ", ".join(f"data.{name}={kept[name]!r}" for name in changed) + f", as {self.run.path} was made with"
            raise SettingError(names, ", ".join(str(now[name]) for name in changed), legal, error.mend) from error
