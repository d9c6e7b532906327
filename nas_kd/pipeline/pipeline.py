"""From a configuration to its stages: each opens what it needs, does its work once and says what it did."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import pandas as pd

from nas_kd.analyse.frames import is_guided
from nas_kd.derive.supernet import of_teacher
from nas_kd.errors import SettingError
from nas_kd.pipeline.check import check_pipeline
from nas_kd.pipeline.context import RunContext
from nas_kd.pipeline.recorded import record_data
from nas_kd.rate import SubnetScorer, rate_blockwise
from nas_kd.rate.units import rate_units
from nas_kd.runs.files import read_json
from nas_kd.searcher.objectives import checked_objectives
from nas_kd.searcher.record import short_settings
from nas_kd.searcher.result import SearchResult
from nas_kd.searcher.rounds import teacher_rounds
from nas_kd.searcher.search import search
from nas_kd.searcher.weighting import stage_weights
from nas_kd.teacher import TargetSource, Teacher
from nas_kd.train.config import RetrainConfig
from nas_kd.train.cream import BOARD


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
            net = of_teacher(self.supernet)
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
        teacher = None if config.source == "average" else self.rater
        return rate_blockwise(
            self.supernet, teacher, self.data, config, run=self.run, seed=self.config.seed, runtime=self.runtime
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
            training=self.by_one(self.config.retrain),
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
        same = kept == (repr(method), searched) if is_guided(first.get("search.engine")) else not self.guided
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
        weights = self.config.search.weights if self.guided else None
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
        guided = self.guided
        config = replace(own, engine=self.config.engine, weights=self.weights if guided else None)
        alone = self.taught and guided and not self.further and own.rounds_of_teachers == 1
        if own.steps > 1 or (self.taught and not alone):  # shares are of the teacher, which the search does not know
            numbers: dict[str, Any] = {f"max_{name}": most for name, most in self.upper.items()}
            numbers |= {f"min_{name}": least for name, least in self.lower.items()}
            config = replace(config, steps=1, **numbers)
        board = self.run.path / "supernet" / BOARD
        if own.first is None and not self.config.derived and board.exists() and read_json(board)["paths"]:
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
        if not self.guided:
            return replace(self.short_training, method="ce")
        return self.by_one(replace(self.short_training, method=self.method))

    @property
    def short_training(self) -> RetrainConfig:
        """How the search's short trainings are done."""
        short = self.shortened(self.config.search.epochs)
        return short if self.guided else replace(short, method_settings={})

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
        return short_settings(self.config.retrain)

    @property
    def short_settings(self) -> dict[str, Any]:
        """Arguments of ``retrain`` for short trainings as the search's, from weights of any kind."""
        short = self.short_training
        return short_settings(short) | {"method": self.method, "epochs": short.epochs, "test": False}

    def check(self, keep: bool = True) -> None:
        """Find every mistake that can be found before the first epoch.

        Args:
            keep: write into the run what it is made of; who helps another process leaves that to it.

        Raises:
            SettingError: naming the first one.
        """
        check_pipeline(self, say=keep)
        if not keep:
            return
        if not self.config.derived:  # what comes from a teacher is recorded when it is derived
            self.run.record_space(self.space.describe())
        record_data(self.run, self.config.data, self.data)
        whole = replace(self.config, blockwise=replace(self.config.blockwise, stage=None))
        self.run.record_config(whole.to_yaml())  # last, so that another experiment's stays as it was
