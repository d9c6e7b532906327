"""From a configuration to its stages: each opens what it needs, does its work once and says what it did."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, cast

import pandas as pd

from nas_kd.analyse.choice import few_images
from nas_kd.analyse.frames import is_guided
from nas_kd.config.measures import measure_named
from nas_kd.derive.supernet import TeacherSupernet
from nas_kd.distill.tasks import unscaled
from nas_kd.distill.texts import check_for_texts
from nas_kd.errors import SettingError
from nas_kd.export.onnx_timed import need_runtime
from nas_kd.pipeline.context import RunContext
from nas_kd.pipeline.ready_made import check_rivals
from nas_kd.pipeline.recorded import record_data
from nas_kd.pipeline.trackers import TRACKERS
from nas_kd.rate import SubnetScorer, rate_blockwise
from nas_kd.rate.units import rate_units
from nas_kd.runs.files import read_json
from nas_kd.runtime.jobs import allow_files
from nas_kd.searcher.objectives import checked_objectives
from nas_kd.searcher.result import SearchResult
from nas_kd.searcher.rounds import teacher_rounds
from nas_kd.searcher.search import TRAINING_FIELDS, search
from nas_kd.searcher.weighting import stage_weights
from nas_kd.space.rows import check_size, sizes_said
from nas_kd.teacher import TargetSource, Teacher
from nas_kd.train.config import RetrainConfig
from nas_kd.train.cream import BOARD
from nas_kd.train.mixing import check_mixing
from nas_kd.train.optim import check_optimizer
from nas_kd.train.options import divergence_of
from nas_kd.train.plan import check_epochs
from nas_kd.train.retrain import checked_method
from nas_kd.train.supernet_weights import check_checkpoint

FLAT = 1e-3  # standard deviation of images, of 1, below which they are of one colour
NOT_HERE = {  # methods that a command cannot give what they need: what that is, and where it can be had
    "takd": ("assistants", "use nas_kd.retrain"),
    "soft_tree": ("a tree as its student", "--retrain.rivals '[soft_tree]' trains one beside the found student"),
}


def _legal(name: str) -> str:
    """Make a name fit for a folder: 1e+03 becomes 1e03, and what is no letter, digit, dot or dash a _."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", name.replace("+", "")).strip("_")


class Pipeline(RunContext):
    """The stages of one configuration, each done when its result is first needed."""

    @cached_property
    def tables(self) -> list[pd.DataFrame]:
        """The blockwise ratings, made when they are not yet."""
        return self.rated(None)

    def rated(self, stage: int | None) -> list[pd.DataFrame]:
        """Rate one stage, from 1, or all."""
        if self.config.derived:
            if stage is not None:
                hint = "leave it out: all units are rated together in seconds"
                raise SettingError("blockwise.stage", stage, "null where the space is the teacher", hint)
            settings = self.config.derive
            net = cast(TeacherSupernet, self.supernet)
            return rate_units(
                net,
                self.unmatched,
                self.data,
                score=settings.score,
                images=settings.rate_images,
                temperature=settings.temperature,
                run=self.run,
            )
        config = replace(self.config.blockwise, stage=stage)
        return rate_blockwise(
            self.supernet, self.rater, self.data, config, run=self.run, seed=self.config.seed, runtime=self.runtime
        )

    @cached_property
    def rater(self) -> Teacher:
        """The teacher that stages are rated against: that of the last round."""
        rounds = self.config.search.rounds_of_teachers
        if rounds == 1:
            return self.teacher
        return teacher_rounds(
            self.supernet,
            self.teacher,
            self.data,
            rounds,
            upper=self.upper,
            rating=replace(self.config.blockwise, stage=None),
            training=self.config.retrain,
            task=self.other_task,
            run=self.run,
            seed=self.config.seed,
            runtime=self.runtime,
        )

    @cached_property
    def weights(self) -> Sequence[float] | None:
        """What the stages' scores are multiplied by, found when the settings only say how."""
        how = self.config.search.weights
        if not isinstance(how, str):
            return how
        return stage_weights(
            how,
            self.tables,
            self.supernet,
            self.rater,
            self.data,
            self.config.blockwise,
            run=self.run,
            seed=self.config.seed,
            runtime=self.runtime,
            task=self.other_task,
        )

    @property
    def _guided(self) -> bool:
        """Whether the teacher's ratings guide the search."""
        return self.config.guided

    @property
    def _first_search(self) -> dict[str, Any]:
        path = self.run.path / "search" / "stage.json"
        return read_json(path, ("inputs",))["inputs"] if path.exists() else {}

    @property
    def other_method(self) -> str:
        """A name for the students' method where it is not that of the run's first search, else nothing.

        A search that the teacher guides, after a first one of another engine, which knows no method, is always named.
        """
        first = self._first_search
        method = self.method
        settings = self.config.retrain.method_settings
        searched = {} if self.further else settings  # a search has one teacher, and kd instead of multi_teacher
        kept = first.get("search.method"), first.get("search.training", {}).get("method_settings", {})
        same = kept == (repr(method), searched) if is_guided(first.get("search.engine")) else not self._guided
        if not first or same:
            return ""
        terms = [method] if isinstance(method, str) else [f"{name}_{weight:g}" for name, weight in method]
        return _legal("_".join([*terms, *(f"{name}_{value}" for name, value in settings.items())]))

    @property
    def search_folder(self) -> str:
        """``search`` for the run's first engine, method and budget, a folder below it for every other three."""
        latency = self.config.search.max_latency_ms
        first = self._first_search
        method = self.other_method
        names = ("search.engine", "search.caps", "search.max_latency_ms", "search.floors", "search.weights")
        # a word stays one: what it stands for is part of the weighted tables, which the search's record has
        engine = self.config.engine
        weights = self.config.search.weights if self._guided else None
        given = engine, self.upper, latency, self.lower, weights
        metric = self.task.measure
        objectives, before = (checked_objectives(o, engine, metric) for o in (self.config.search.objectives, None))
        if engine == first.get("search.engine"):
            before = tuple(first.get("search.objectives", before))  # no record has the engine's own
        same = objectives == before
        timed_by = self.config.search.latency_runtime
        alike = same and timed_by == first.get("search.latency_runtime", "torch")
        if not first or (tuple(first.get(name) for name in names) == given and alike and not method):
            return "search"
        milliseconds = "latency_ms" if timed_by == "torch" else f"{timed_by}_ms"
        limits: dict[str, float] = self.upper | ({} if latency is None else {milliseconds: latency})
        limits |= {f"min_{name}": floor for name, floor in self.lower.items()}
        named = "_".join(f"{name}_{cap}" for name, cap in limits.items()) or "unlimited"
        parts = ["" if engine == first.get("search.engine") else engine, method, named]
        if weights != first.get("search.weights"):
            numbers = [weights] if isinstance(weights, str) else [f"{weight:.3g}" for weight in weights or ()]
            parts.append("_".join(["weights", *numbers]))
        parts.append("" if same else "_".join(objectives))
        return "search/" + _legal("_".join(part for part in parts if part))

    @cached_property
    def result(self) -> SearchResult:
        """The search's result, made when it is not yet."""
        return self.searched()

    def searched(self, worker: bool = False) -> SearchResult:
        """Search, or help a search that is going; only guided engines search with the teacher."""
        own = self.config.search
        guided = self._guided
        config = replace(own, engine=self.config.engine, weights=self.weights if guided else None)
        alone = self.taught and guided and not self.further and own.rounds_of_teachers == 1
        if own.steps > 1 or (self.taught and not alone):  # shares are of the teacher, which the search does not know
            numbers: dict[str, Any] = {f"max_{name}": most for name, most in self.upper.items()}
            numbers |= {f"min_{name}": least for name, least in self.lower.items()}
            config = replace(config, steps=1, **numbers)
        board = self.run.path / "supernet" / BOARD
        if own.first is None and not self.config.derived and board.exists():
            config = replace(config, first=str(board))
        inputs: dict[str, Any] = {}
        if guided and isinstance(own.weights, str):
            inputs["search.weights"] = own.weights
        if guided and self.further:  # told apart from a search for a student of one teacher
            inputs["search.method"] = repr(self.method)
        return search(
            self.supernet,
            self._searching if guided else None,
            self.data,
            self.tables if guided else None,
            config,
            run=self.run,
            folder=self.search_folder,
            task=self.other_task,
            training=self._search_training,
            workers=self.config.workers,
            worker=worker,
            seed=self.config.seed,
            runtime=self.runtime,
            inputs=inputs,
        )

    @property
    def _searching(self) -> TargetSource | None:
        """What a search compares with: the answers of the teacher that the stages were rated against."""
        if self.config.search.rounds_of_teachers == 1:
            return self.answers
        return self.rater if self.recipe.runs_teacher else self.rater.cached(self.data, self.run)

    @property
    def _search_training(self) -> RetrainConfig:
        """The short trainings of a search, which has one teacher: kd where the method learns from several."""
        if not self._guided:
            return replace(self.short_training, method="ce")
        if self.further:
            return replace(self.short_training, method="kd", method_settings={})
        return replace(self.short_training, method=self.method)

    @property
    def short_training(self) -> RetrainConfig:
        """How the search's short trainings are done."""
        short = self.shortened(self.config.search.epochs)
        return short if self._guided else replace(short, method_settings={})

    @property
    def scorer(self) -> SubnetScorer:
        """Scores whole subnets as the search does, with a teacher against it too."""
        settings = self.config.search
        targets = self.cache.split_logits("rate", self.data) if self.taught else None
        return SubnetScorer(
            self.supernet,
            self.data,
            targets,
            task=self.task,
            runtime=self.runtime,
            calibration_images=settings.calibration_images,
            rate_images=settings.rate_images,
        )

    @property
    def training(self) -> dict[str, Any]:
        """Arguments of ``retrain`` that short and full trainings share."""
        return {name: getattr(self.config.retrain, name) for name in TRAINING_FIELDS}

    @property
    def short_settings(self) -> dict[str, Any]:
        """Arguments of ``retrain`` for short trainings as the search's, from weights of any kind."""
        short = self.short_training
        shared = {name: getattr(short, name) for name in TRAINING_FIELDS}
        return shared | {"method": self.method, "epochs": short.epochs, "test": False}

    def _check_method(self) -> None:
        method = self.method
        _ = self.task  # data are opened here, so that a mistake of theirs is not taken for one of the method
        try:
            recipe = self.recipe
        except SettingError as error:
            setting = error.field.removeprefix(f"{method}.")
            own = setting in self.config.retrain.method_settings
            field = f"retrain.method_settings.{setting}" if own else "retrain.method"
            raise SettingError(field, error.value if own else method, error.expected, error.hint) from error
        if not self.taught and recipe.needs_teacher:
            hint = "give teacher.model, or retrain.method=ce"
            raise SettingError("retrain.method", method, "ce or a method without a teacher", hint)
        if isinstance(method, str) and method in NOT_HERE:
            lacks, hint = NOT_HERE[method]
            raise SettingError("retrain.method", method, f"a method without {lacks}", hint)
        others = list(self.config.teacher.others or ())
        if method == "multi_teacher" and not others:
            hint = "name more teachers: --teacher.others '[resnet18=FILE, runs/other/student]'"
            raise SettingError("teacher.others", others, "one or more, which multi_teacher averages", hint)
        if others and method != "multi_teacher":
            expected = "retrain.method=multi_teacher, which learns from several"
            raise SettingError("teacher.others", others, expected, "omit the others, or take that method")
        if self.data.tokens is not None:
            check_for_texts(recipe, self.config.retrain.mixes)
        _ = self.further  # a wrong name is refused now

    def check(self, keep: bool = True) -> None:
        """Find every mistake that can be found before the first epoch.

        Args:
            keep: write into the run what it is made of; who helps another process leaves that to it.

        Raises:
            SettingError: naming the first one.
        """
        self._check_method()
        if far := unscaled(self.data):
            each = ", ".join(f"{name} {spread:.3g}" for name, spread in far.items())
            self.run.log_message(
                f"labels have standard deviations far from 1 ({each}): divide them, or trainings may fail"
            )
        if keep and (few := few_images(len(self.data.select), measure_named(self.task.measure))):
            self.run.log_message(few)
        if max(self.data.std) <= FLAT:
            expected = "images with something on them: all pixels of all training images have one value"
            raise SettingError("data.train", str(self.config.data.train), expected, "look at the files")
        allow_files(self.config.workers)
        own = self.config.retrain
        if (rounds := self.config.search.rounds_of_teachers) > 1 and self.config.derived:
            expected = "1 where the space is the teacher: its units are rated in the teacher itself"
            raise SettingError("search.rounds_of_teachers", rounds, expected, "name a space, or use search.steps")
        if self.data.tokens is not None and "p_tg" in (self.config.search.objectives or ()):
            expected = "objectives without p_tg, which compares layers on images"
            raise SettingError("search.objectives", list(self.config.search.objectives or ()), expected, "use kl")
        if own.ensemble and (self.data.kind != "classes" or self.data.tokens is not None):
            what = "texts" if self.data.tokens is not None else f"labels that are {self.data.kind}"
            expected = f"0 with {what}: images of one class each have ensembles"
            raise SettingError("retrain.ensemble", own.ensemble, expected, "omit it")
        if own.ensemble and {*self.outline.resolutions} - {self.data.resolution}:
            expected = f"0 where archs choose an input size of {self.outline.resolutions}: members share their input"
            raise SettingError("retrain.ensemble", own.ensemble, expected, "omit it, or the input sizes")
        theirs = self.config.teacher
        if own.optimizer is not None:
            check_optimizer("retrain.optimizer", own.optimizer)
        images = len(self.data.train)
        check_mixing(own.fitted(images), self.recipe, kind=self.data.kind)
        if theirs.epochs:
            if theirs.optimizer is not None:
                check_optimizer("teacher.optimizer", theirs.optimizer)
            labels = checked_method("ce", self.task, self.data.num_classes).recipe
            check_mixing(theirs.fitted(images), labels, kind=self.data.kind)
        for name, least in (("rate", 2), ("select", 1)):
            if len(getattr(self.data, name)) < least:
                expected = f"a share that holds at least {least} images of train"
                given = getattr(self.config.data, name)
                raise SettingError(f"data.{name}", given, expected, f"use data.{name}=0.05")
        trained = ("repair" if self.config.derived else "supernet", "retrain")
        for name in (*trained, "blockwise") if self.taught and not self.config.derived else trained:
            batch = getattr(self.config, name).fitted(images).batch_size
            if batch > images:
                expected = f"at most {images}, the number of training images"
                raise SettingError(f"{name}.batch_size", batch, expected)
        if not self.config.derived:
            supernet = self.config.supernet
            check_checkpoint(self.outline, supernet, self.data.num_classes, self.data.in_chans)
            divergence_of(supernet, self.task)
            supernet = supernet.fitted(images, supernet.accumulate * self.together.world)
            if supernet.epochs:
                check_epochs(
                    "supernet",
                    supernet.epochs,
                    supernet.batch_size,
                    self.data.train,
                    supernet.accumulate,
                    self.together.world,
                )
        if self._guided or self.config.data.resolution is not None:
            check_size(self.outline, self.data.resolution)
        if keep and (said := sizes_said(self.outline, self.data.resolution)):
            self.run.log_message(said)
        if self.timing is not None:
            self.timing.check(self.outline, self.cost)
        need_runtime(self.config.search.latency_runtime)
        for name in self.config.log or ():
            TRACKERS[name].need_packages()
        _ = self.lower  # an infeasible budget is refused now, before a teacher is trained
        if not (self.config.derived and (self.config.teacher.epochs or self.config.search.steps > 1)):
            _ = self.budget  # a latency that is too low as well
        check_rivals(self, layers=self.recipe.needs_features)
        if not keep:
            return
        if not self.config.derived:  # what comes from a teacher is recorded when it is derived
            self.run.record_space(self.space.describe())
        record_data(self.run, self.config.data, self.data)
        whole = replace(self.config, blockwise=replace(self.config.blockwise, stage=None))
        self.run.record_config(whole.to_yaml())  # last, so that another experiment's stays as it was
