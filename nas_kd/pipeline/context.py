"""What a configuration stands for: data, space, budget, teacher and supernet, each made when first needed."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

from nas_kd.data import Data, load_data
from nas_kd.data.summary import summary
from nas_kd.derive.space import TeacherSpace
from nas_kd.derive.supernet import TeacherSupernet, of_teacher
from nas_kd.distill import Classification, Recipe, Task, task_of
from nas_kd.errors import SettingError
from nas_kd.pipeline.config import Config
from nas_kd.pipeline.given import Given
from nas_kd.runs.files import atomic_json, read_json
from nas_kd.runs.run import Run
from nas_kd.runs.shape import as_written
from nas_kd.runtime.device import Runtime
from nas_kd.runtime.ranks import leave_group, rank_zero_first
from nas_kd.runtime.seeds import seed_for
from nas_kd.searcher.budget import Budget
from nas_kd.searcher.steps import cut_in_steps
from nas_kd.space import ElasticSpace
from nas_kd.supernet import Supernet
from nas_kd.teacher import TargetSource, Teacher, TeacherCheck, TeacherEnsemble
from nas_kd.teacher.check import examine
from nas_kd.train import train_supernet, train_teacher
from nas_kd.train.config import RetrainConfig
from nas_kd.train.repair import repair_units
from nas_kd.train.retrain import checked_method


class RunContext(Given):
    """The objects of one configuration and of its run folder, each made when it is first needed.

    Raises:
        SettingError: the run folder cannot be used.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
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

    @property
    def device(self) -> str:
        return str(self.runtime.device)

    @cached_property
    def images(self) -> Data:
        data = load_data(self.texts, device=self.device)
        for line in summary(data, self.config.data.train):
            self.run.log_message(line)
        return data

    @cached_property
    def outline(self) -> ElasticSpace:
        """The space, its weights being others where the teacher is yet to be trained."""
        if self.config.derived and not self.config.teacher.epochs:
            return self.whole_space
        return super().outline

    @cached_property
    def whole_space(self) -> TeacherSpace:
        """The teacher as a space."""
        space = self.derived(self.unmatched, self.data)
        self.run.log_message(f"space: the {len(space.stages)} units of {self.unmatched.name}")
        if self.config.search.steps == 1:
            self.run.record_space(space.describe())
        return space

    @cached_property
    def space(self) -> ElasticSpace:
        """The search space: the one that is named, else the teacher, or what all steps but the last leave of it."""
        if not self.config.derived:
            return self.outline
        if self.config.search.steps == 1:
            return self.whole_space
        space = self.supernet.space
        self.run.record_space(space.describe())
        return space

    @cached_property
    def budget(self) -> Budget:
        """The budget, with the upper bounds and the latency that was measured."""
        latency = self.config.search.max_latency_ms
        device = self.runtime.device
        timed_by = self.config.search.latency_runtime
        return Budget(self.space, self.cost, self.upper, latency, device, self.run, self.lower, self.timing, timed_by)

    @cached_property
    def unmatched(self) -> Teacher:
        """The teacher, trained first when the settings say so, bound to the data, perhaps without taps."""
        settings = self.config.teacher
        if settings.epochs:
            _ = self.untrained  # a wrong name in teacher.stages is refused now
            teacher = train_teacher(
                self.model, self.data, settings, run=self.run, seed=self.config.seed, runtime=self.runtime
            )
        else:
            teacher = self.outlined
        teacher = teacher.to(self.runtime.device).bind(self.data)
        self.run.record_teacher({"name": teacher.name, "fingerprint": teacher.fingerprint})
        self._check(teacher)
        return teacher

    @property
    def checked(self) -> TeacherCheck | None:
        """Nothing: what is seen of the teacher is said once, when it is there."""
        return None

    def _check(self, teacher: Teacher) -> None:
        """Look for what is wrong with the teacher, once in a run; the same is said and refused when it goes on."""
        check = self.config.teacher.check
        if check == "off":
            return
        path = self.run.path / "teacher" / "check.json"
        of = {"teacher": teacher.fingerprint, "data": self.data.fingerprint}
        known = read_json(path, delete=path) if path.exists() else {}
        if known.get("of") == of:
            with as_written(path, f"delete {path}: the teacher is looked at again"):
                found = TeacherCheck.from_dict(known["seen"])
        else:
            found = examine(teacher, self.data, trained=bool(self.config.teacher.epochs))
            atomic_json(path, {"of": of, "seen": found.to_dict()})
            self.run.log_message(self.data.spoken(found.line))
        for line in found.judge(teacher.name, check):
            self.run.log_message(line)

    @cached_property
    def outlined(self) -> Teacher:
        """The teacher with the weights that the settings name; with random ones where it is trained first."""
        settings = self.config.teacher
        return self.untrained if settings.epochs else self.loaded(settings.checkpoint, settings.pretrained)

    @cached_property
    def teacher(self) -> Teacher:
        """The teacher, with a tap for each stage of the space where its features are needed."""
        if self.config.derived or (not self.config.guided and not self.recipe.runs_teacher):
            return self.unmatched
        if self.config.teacher.epochs:
            self.untrained.match(self.space, self.data.resolution)  # before hours of training
        self.unmatched.match(self.space, self.data.resolution)
        return self.unmatched

    @cached_property
    def cache(self) -> TargetSource:
        """The teacher's logits of every numbered view; the live teacher where views cannot be numbered."""
        return self.teacher.cached(self.data, self.run, folder=self.config.teacher.cache)

    @cached_property
    def others(self) -> list[TargetSource]:
        """The further teachers' logits, stored unless images are mixed."""
        found = [other.to(self.runtime.device).bind(self.data) for other in self.further]
        if self.config.retrain.mixes:
            return [*found]
        return [other.cached(self.data, self.run, folder=self.config.teacher.cache) for other in found]

    @property
    def teaching(self) -> TargetSource | None:
        """What teaches the students: the stored logits, the live teacher where features are needed, or nothing."""
        first = self.answers
        return TeacherEnsemble([first, *self.others]) if first is not None and self.others else first

    @property
    def answers(self) -> TargetSource | None:
        """The same of the first teacher alone, against which a search scores subnets."""
        if not self.taught:
            return None
        mixed = self.config.retrain.mixes and self.recipe.needs_teacher
        return self.teacher if self.recipe.runs_teacher or mixed else self.cache

    @cached_property
    def task(self) -> Task:
        """What labels mean: the only place of a run that says so, but for the smoothing in trainings."""
        return task_of(self.data, measure=self.config.metric)

    @property
    def other_task(self) -> Task | None:
        """The task where it is not plain classification, which records of runs leave out."""
        return None if self.task == Classification(smoothing=0.0) else self.task

    @property
    def method(self) -> Any:
        """How students are trained in the end."""
        inherited = self.config.init == "inherited"
        return self.config.retrain.settled(taught=self.taught, inherited=inherited).method

    @cached_property
    def recipe(self) -> Recipe:
        """What the students' method is made of."""
        settings = self.config.retrain.method_settings
        return checked_method(self.method, self.task, self.data.num_classes, settings).recipe

    @cached_property
    def supernet(self) -> Supernet:
        """The in-place distilled supernet, trained when it is not yet, by all processes; then they part.

        Where the space is the teacher, its weights are the teacher's, with its cuts repaired.
        """
        if self.config.derived:
            return self._cut_in_steps() if self.config.search.steps > 1 else self._whole_supernet()
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

    def _whole_supernet(self) -> TeacherSupernet:
        """The supernet of the whole teacher, its cuts repaired."""
        net = of_teacher(Supernet(self.whole_space))
        how = self.config.repair
        seed = self.config.seed
        return repair_units(net, self.unmatched, self.data, how, run=self.run, seed=seed, runtime=self.runtime)

    def _cut_in_steps(self) -> TeacherSupernet:
        """The supernet of the teacher after all steps but the last."""
        config = self.config
        return cut_in_steps(
            self._whole_supernet(),
            self.unmatched,
            self.data,
            config.search,
            upper=self.upper,
            derive=self.derived,
            rating=config.derive,
            repair=config.repair,
            training=self.by_one(self.shortened(config.search.step_epochs)),
            answers=self.answers,
            task=self.task,
            run=self.run,
            seed=config.seed,
            runtime=self.runtime,
        )

    def by_one(self, training: RetrainConfig) -> RetrainConfig:
        """How students of one teacher are trained: by kd where the method learns from several."""
        return replace(training, method="kd", method_settings={}) if self.further else training

    def shortened(self, epochs: int) -> RetrainConfig:
        """How a shorter training is done: as retrainings, with the same shares of their length."""
        config = self.config.retrain
        settled = config.settled(taught=self.taught, inherited=self.config.derived)
        given = config.milestones
        return replace(
            config,
            epochs=epochs or config.epochs,
            warmup_epochs=min(settled.warmup_epochs or 0.0, epochs / 4),
            milestones=None if given is None or not epochs else [epoch * epochs / config.epochs for epoch in given],
        )

    @property
    def guided(self) -> bool:
        """Whether the teacher's ratings guide the search."""
        return self.config.guided
