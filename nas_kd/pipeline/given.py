"""What a configuration names, as far as it is known before a run has done anything: data, teacher, space, budget."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from nas_kd.config.hub import at_home
from nas_kd.config.paths import transformers_about
from nas_kd.data import Data, load_data
from nas_kd.data.config import DataConfig
from nas_kd.derive.space import TeacherSpace, teacher_space
from nas_kd.errors import SettingError
from nas_kd.pipeline.places import with_tokenizer
from nas_kd.searcher.budget import cost_settings, lower_bounds, upper_bounds
from nas_kd.searcher.latency_table import LatencyTable, read_latency_table
from nas_kd.space import Cost, ElasticSpace, load_space
from nas_kd.teacher import Teacher, TeacherCheck, load_teacher
from nas_kd.teacher.build import build, pretrained_normalisation
from nas_kd.teacher.check import IMAGES, examine
from nas_kd.teacher.load import fitting
from nas_kd.train.supernet_weights import normalisation_of

if TYPE_CHECKING:
    from nas_kd.pipeline.config import Config


CHEAP = 5e11  # MACs, about a minute of a CPU core


class Given:
    """The objects that a configuration names, each made when it is first needed; nothing is written.

    Args:
        config: all settings.
    """

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def device(self) -> str:
        """Where images are kept."""
        return "cpu"

    @property
    def taught(self) -> bool:
        """Whether there is a teacher."""
        return self.config.teacher.model is not None

    @cached_property
    def images(self) -> Data:
        """The data set with its own normalisation."""
        return load_data(self.texts, device=self.device)

    @property
    def texts(self) -> DataConfig:
        """The settings of the data, with the tokenizer of a teacher that is a text classifier."""
        return with_tokenizer(self.config)

    @cached_property
    def data(self) -> Data:
        """The data set, normalised as of the weights that students begin with: the teacher's, or a supernet's file."""
        if self.config.supernet.checkpoint is not None:
            trained_on = normalisation_of(self.config.supernet.checkpoint)
            fits = trained_on is not None and len(trained_on[0]) == self.images.in_chans  # else refused by its shapes
            return self.images.normalised(*trained_on) if trained_on is not None and fits else self.images
        settings = self.config.teacher
        if self.config.derived and settings.epochs:  # fine-tuned with the normalisation of its pretrained weights
            own = pretrained_normalisation(self.model, settings.checkpoint, settings.pretrained)
            each = None if own is None else [fitting(values, self.images.in_chans) for values in own]
            return self.images if not each or None in each else self.images.normalised(*each)  # type: ignore[arg-type]
        teacher = self.outlined if self.config.derived else None
        if teacher is None or teacher.mean is None or teacher.std is None:
            return self.images
        return self.images.normalised(teacher.mean, teacher.std)

    @property
    def outlined(self) -> Teacher:
        """The teacher as far as it is known: with its own weights or with random ones."""
        return self.untrained

    @cached_property
    def untrained(self) -> Teacher:
        """The teacher's network with random weights, to find mistakes before there are others."""
        return self.loaded(new_head=bool(self.config.teacher.epochs))

    def loaded(self, checkpoint: str | None = None, pretrained: bool = False, new_head: bool = False) -> Teacher:
        """Load the teacher's network; arguments as of `load_teacher`.

        Args:
            new_head: of a text encoder the classifier may be missing, or of other classes: it is trained later.
        """
        settings = self.config.teacher
        if self.config.derived and settings.resolution not in (None, self.images.resolution):
            expected = (
                f"null or {self.images.resolution} where the space is the teacher: its cuts see the data's images"
            )
            raise SettingError("teacher.resolution", settings.resolution, expected, "set data.resolution")
        classes = self.images.num_classes
        fresh = new_head and transformers_about(at_home("teacher.model", self.model)) is not None
        return load_teacher(
            build(self.model, num_classes=classes, new_head=True).module if fresh else self.model,
            checkpoint=checkpoint,
            num_classes=classes,
            in_chans=self._teacher_chans(checkpoint, pretrained),
            stages=settings.stages,
            pretrained=pretrained,
            mean=settings.mean,
            std=settings.std,
            resolution=settings.resolution or self.images.resolution,
            name=self.model if fresh else None,
        ).bind(self.images)

    @cached_property
    def further(self) -> list[Teacher]:
        """The teachers besides the first, with their weights."""
        found = []
        for text in self.config.teacher.others or ():
            name, _, weights = text.partition("=")
            pretrained = weights == "pretrained"
            other = load_teacher(
                name,
                checkpoint=None if pretrained or not weights else weights,
                num_classes=self.images.num_classes,
                in_chans=self._teacher_chans(weights or None, pretrained),
                pretrained=pretrained,
                resolution=self.images.resolution,
            )
            found.append(other.bind(self.images))
        return found

    def _teacher_chans(self, checkpoint: str | None, pretrained: bool) -> int | None:
        """Return the channels to load a teacher with: None for those of its checkpoint, where grey is repeated."""
        chans = self.images.in_chans
        if chans != 1 or self.config.derived or self.config.teacher.grey == "sum":
            return chans
        return None if checkpoint is not None else 3 if pretrained else chans

    @cached_property
    def checked(self) -> TeacherCheck | None:
        """What is seen of the teacher on a few images; None where it has no weights yet, or a look takes minutes."""
        settings = self.config.teacher
        named = settings.model is not None and any(mark in settings.model for mark in ":/")
        if settings.epochs or settings.check == "off" or not (settings.checkpoint or settings.pretrained or named):
            return None
        teacher = self.loaded(settings.checkpoint, settings.pretrained)
        images = min(len(self.images.rate), IMAGES)
        return None if (teacher.macs or 0) * images > CHEAP else examine(teacher, self.images, images)

    @property
    def model(self) -> str:
        """The name of the teacher's network."""
        if self.config.teacher.model is None:
            raise SettingError("teacher.model", None, "a network that teaches", "give teacher.model")
        return self.config.teacher.model

    @cached_property
    def outline(self) -> ElasticSpace:
        """The space, named or the teacher itself, with every choice and what it costs; its weights may be others."""
        if self.config.space is not None:
            if self.images.tokens is not None:
                expected = "null where the data are texts: the space is the teacher"
                raise SettingError("space", self.config.space, expected, "leave space out")
            return load_space(self.config.space)
        return self.derived(self.outlined, None)

    def derived(self, teacher: Teacher, data: Data | None) -> TeacherSpace:
        """Derive the space from a teacher.

        Args:
            teacher: bound to the data.
            data: images that channels are weighed on; without them they stay in any order.
        """
        settings = self.config.derive
        return teacher_space(
            teacher,
            data,
            settings.widths,
            settings.depth,
            settings.residual,
            resolutions=settings.resolutions,
            importance="l1" if data is None else settings.importance,
            resolution=self.images.resolution,
            seed=self.config.seed,
        )

    @cached_property
    def cost(self) -> dict[str, int]:
        """What ``space.cost`` needs besides an arch."""
        return cost_settings(self.outline, self.images)

    @cached_property
    def whole(self) -> Cost | None:
        """The teacher's cost, which shares of a budget are of; None without a teacher."""
        if self.config.derived:  # as its space counts it
            return self.outline.cost(self.outline.largest(), **self.cost)
        return self.outlined.cost if self.taught else None

    @cached_property
    def timing(self) -> LatencyTable | None:
        """The latencies of another device, if they are given."""
        path = self.config.search.latency_table
        return None if path is None else read_latency_table(path)

    @cached_property
    def upper(self) -> dict[str, int]:
        """The upper bounds of the budget as numbers; raises when they are infeasible."""
        settings = self.config.search
        caps = settings.max_macs, settings.max_params
        return upper_bounds(self.outline, self.images, *caps, self.whole, settings.larger)

    @cached_property
    def lower(self) -> dict[str, int]:
        """The lower bounds of the budget as numbers; raises when the ranges are infeasible."""
        settings = self.config.search
        return lower_bounds(self.outline, self.images, self.upper, settings.min_macs, settings.min_params, self.whole)

    def check_cost(self, field: str, name: str, cost: Cost) -> None:
        """Refuse a model beyond the budget.

        Args:
            field: the setting that names it.
            name: what it is called there.
        """
        for what, most in self.upper.items():
            if getattr(cost, what) > most:
                expected = f"a model within the budget, {most:,} {what}; it has {getattr(cost, what):,}"
                raise SettingError(field, name, expected, "name a smaller one, or omit it")
        for what, least in self.lower.items():
            if getattr(cost, what) < least:
                expected = f"a model of at least {least:,} {what}; it has {getattr(cost, what):,}"
                raise SettingError(field, name, expected, "name a larger one, or omit it")
