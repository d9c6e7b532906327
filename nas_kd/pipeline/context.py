"""What a configuration stands for: data, space, budget, teacher and supernet, each made when first needed."""

from __future__ import annotations

from functools import cached_property

from nas_kd.data import Data, load_data
from nas_kd.distill import Classification, Recipe
from nas_kd.errors import SettingError
from nas_kd.pipeline.config import Config
from nas_kd.runs.run import Run
from nas_kd.runtime.device import Runtime
from nas_kd.runtime.ranks import leave_group, rank_zero_first
from nas_kd.runtime.seeds import seed_for
from nas_kd.searcher.budget import Budget, cost_settings, lower_bounds, upper_bounds
from nas_kd.space import ElasticSpace, load_space
from nas_kd.supernet import Supernet
from nas_kd.teacher import TargetSource, Teacher, load_teacher
from nas_kd.train import train_supernet, train_teacher
from nas_kd.train.retrain import checked_method


class RunContext:
    """The objects of one configuration, each made when it is first needed.

    Raises:
        SettingError: the run folder cannot be used.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        if config.run is None:  # the command line fills it in
            raise SettingError("run", None, "the path of a folder", "write run='runs/NAME'")
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
        return self.together.single_process()

    @cached_property
    def space(self) -> ElasticSpace:
        """The search space."""
        return load_space(self.config.space)

    @cached_property
    def data(self) -> Data:
        """The data set."""
        data = load_data(self.config.data, device=str(self.runtime.device))
        sizes = ", ".join(f"{split.name} {len(split)}" for split in data.splits)
        shape = f"{data.in_chans} x {data.resolution} x {data.resolution}"
        self.run.log_message(f"data: {self.config.data.train}, {data.num_classes} classes, {shape}; images: {sizes}")
        if data.unreadable:
            names = ", ".join(name for name, _ in data.unreadable[:5]) + (" ..." if len(data.unreadable) > 5 else "")
            self.run.log_message(f"data: {len(data.unreadable)} unreadable images are left out, see data.csv: {names}")
        return data

    @cached_property
    def cost(self) -> dict[str, int]:
        """What ``space.cost`` needs besides an arch."""
        return cost_settings(self.space, self.data)

    @cached_property
    def caps(self) -> dict[str, int]:
        """The budget as numbers; raises when it is infeasible."""
        return upper_bounds(self.space, self.data, self.config.search.max_macs, self.config.search.max_params)

    @cached_property
    def floors(self) -> dict[str, int]:
        """The smallest costs of a budget that is a range, as numbers; raises when the ranges are infeasible."""
        settings = self.config.search
        return lower_bounds(self.space, self.data, self.caps, settings.min_macs, settings.min_params)

    @cached_property
    def budget(self) -> Budget:
        """The budget, with the caps and the latency that was measured."""
        latency = self.config.search.max_latency_ms
        return Budget(self.space, self.cost, self.caps, latency, self.runtime.device, self.run, self.floors)

    @cached_property
    def unmatched(self) -> Teacher:
        """The teacher, trained first when the settings say so, bound to the data, perhaps without taps."""
        settings = self.config.teacher
        if settings.model is None:
            raise SettingError("teacher.model", None, "a network that teaches", "give teacher.model")
        if settings.epochs:
            _ = self._untrained  # a wrong name in teacher.stages is refused now
            teacher = train_teacher(
                settings.model, self.data, settings, run=self.run, seed=self.config.seed, runtime=self.runtime
            )
        else:
            teacher = load_teacher(
                settings.model,
                checkpoint=settings.checkpoint,
                num_classes=self.data.num_classes,
                in_chans=self.data.in_chans,
                stages=settings.stages,
                pretrained=settings.pretrained,
                mean=settings.mean,
                std=settings.std,
                resolution=self.data.resolution,
            )
        teacher = teacher.to(self.runtime.device).bind(self.data)
        self.run.record_teacher({"name": teacher.name, "fingerprint": teacher.fingerprint})
        return teacher

    @cached_property
    def _untrained(self) -> Teacher:
        """The network that will be trained to be the teacher, to find mistakes before that."""
        settings = self.config.teacher
        assert settings.model is not None  # whoever asks has looked
        return load_teacher(
            settings.model,
            num_classes=self.data.num_classes,
            in_chans=self.data.in_chans,
            stages=settings.stages,
            resolution=self.data.resolution,
        ).bind(self.data)

    @cached_property
    def teacher(self) -> Teacher:
        """The teacher, with a tap for each stage of the space where its features are needed."""
        if self.config.engine != "exact" and not self.recipe.runs_teacher:
            return self.unmatched
        if self.config.teacher.epochs:
            self._untrained.match(self.space, self.data.resolution)  # before hours of training
        self.unmatched.match(self.space, self.data.resolution)
        return self.unmatched

    @cached_property
    def cache(self) -> TargetSource:
        """The teacher's logits of every numbered view; the live teacher where views cannot be numbered."""
        return self.teacher.cached(self.data, self.run, folder=self.config.teacher.cache)

    @property
    def taught(self) -> bool:
        """Whether there is a teacher."""
        return self.config.teacher.model is not None

    @property
    def teaching(self) -> TargetSource | None:
        """What teaches the students: the stored logits, the live teacher where features are needed, or nothing."""
        if not self.taught:
            return None
        mixed = self.config.retrain.mixes and self.recipe.needs_teacher
        return self.teacher if self.recipe.runs_teacher or mixed else self.cache

    @cached_property
    def recipe(self) -> Recipe:
        """What the students' method is made of."""
        settings = self.config.retrain.method_settings
        return checked_method(self.config.method, Classification(), self.data.num_classes, settings).recipe

    @cached_property
    def supernet(self) -> Supernet:
        """The in-place distilled supernet, trained when it is not yet, by all processes; then they part."""
        config = self.config.supernet
        start = seed_for(self.config.seed, "init", "supernet")
        runtime = self.together
        with rank_zero_first():  # the first finds mistakes, may download data and stores teacher logits
            transform = config.kernel_transform
            net = Supernet(
                self.space, self.data.num_classes, self.data.in_chans, seed=start, kernel_transform=transform
            )
            teacher = self.cache if config.teacher_weight > 0.0 else None
        train_supernet(net, self.data, config, run=self.run, teacher=teacher, seed=self.config.seed, runtime=runtime)
        leave_group()
        return net
