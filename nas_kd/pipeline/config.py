"""All settings together: what a config file holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from nas_kd.config.settings import Settings, settings
from nas_kd.config.types import Count, Integer
from nas_kd.data.config import DataConfig
from nas_kd.derive.config import DeriveConfig
from nas_kd.errors import SettingError
from nas_kd.ranking.config import RankConfig
from nas_kd.runtime.device import check_runtime
from nas_kd.searcher.config import SearchConfig
from nas_kd.searcher.database import without_password
from nas_kd.searcher.engines import search_engine
from nas_kd.searcher.objectives import checked_objectives
from nas_kd.train.blockwise_config import BlockwiseConfig
from nas_kd.train.config import Init, RetrainConfig
from nas_kd.train.repair_config import RepairConfig
from nas_kd.train.supernet_config import SupernetConfig
from nas_kd.train.teacher_config import TeacherConfig

Names = Sequence[Literal["csv", "mlflow", "tensorboard", "wandb"]]


def _listed(value: Any) -> Any:
    """Take ``tensorboard,csv`` as the command line has it for a list."""
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


Trackers = Annotated[Names, BeforeValidator(_listed), "one or several of csv, mlflow, tensorboard, wandb"]
Hours = Annotated[float, Field(gt=0, lt=100_000, allow_inf_nan=False)]  # timers count seconds in 64 bits of nanoseconds


@settings("")
class Config(Settings):
    """Everything a run depends on."""

    space: str | None = None
    """search space: a name such as resnet_cifar, or the path of a .py file that defines SPACE; null is the teacher
    itself, cut down"""
    run: str | None = None
    """run folder; null is runs/ and the name of the config file"""
    seed: Integer = 0
    """seed of everything but the data's splits and views"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps"""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """32-true or bf16-mixed"""
    threads: Count | None = None
    """CPU threads of this process; null leaves it to torch"""
    workers: Count = 2
    """one-thread processes for independent trainings; 1 stays in this process"""
    on_nan: Literal["stop", "skip"] = "stop"
    """stop or skip: what a training does at a step whose loss or gradient is not finite"""
    metric: Literal["accuracy", "balanced_accuracy", "macro_f1", "map", "r2", "mae"] | None = None
    """what search and hand-over go by: accuracy, balanced_accuracy or macro_f1 of classes, map or macro_f1 of several
    labels an image, r2 or mae of numbers; null is the first of its kind"""
    max_hours: Hours | None = None
    """stop after so many hours, with everything saved for the same command to go on (exit code 124), for queues"""
    log: Trackers | None = None
    """trackers that follow the run, one or several of csv, mlflow, tensorboard and wandb (extras of these names), in
    track/ of the run; null is none"""
    plan: bool = True
    """say before the start what will be done, for how long and on how much disk, from a few timed steps of each kind"""
    data: DataConfig = field(default_factory=DataConfig)
    """Images"""
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    """Teacher"""
    derive: DeriveConfig = field(default_factory=DeriveConfig)
    """The teacher as the space"""
    repair: RepairConfig = field(default_factory=RepairConfig)
    """Repair of the teacher's cut units"""
    supernet: SupernetConfig = field(default_factory=SupernetConfig)
    """Supernet"""
    blockwise: BlockwiseConfig = field(default_factory=BlockwiseConfig)
    """Blockwise rating"""
    search: SearchConfig = field(default_factory=SearchConfig)
    """Search"""
    retrain: RetrainConfig = field(default_factory=RetrainConfig)
    """Retraining"""
    rank: RankConfig = field(default_factory=RankConfig)
    """Ranking of scores"""

    def __post_init__(self) -> None:
        check_runtime(self.device, self.precision, self.threads, self.on_nan)
        if len({*(self.log or ())}) < len(self.log or ()):
            raise SettingError("log", list(self.log or ()), "each tracker once", "leave out what is there twice")
        if self.teacher.model is None and self.space is None:
            expected = "the name of a space where there is no teacher to cut down"
            raise SettingError("space", None, expected, "give teacher.model, or a space such as space=resnet_cifar")
        if self.teacher.model is None and self.guided and self.search.engine != "gates":
            expected = "nsga2, coarse or random without a teacher"
            raise SettingError(
                "search.engine", self.search.engine, expected, "give teacher.model, or search.engine=nsga2"
            )
        if self.search.engine == "gates" and (self.teacher.model is None or not self.derived):
            expected = "an engine for named spaces: gates are on the parts of a teacher that is cut down"
            raise SettingError("search.engine", "gates", expected, "leave space out, or use search.engine=exact")
        checked_objectives(self.search.objectives, self.engine)
        if self.retrain.init == "inherited" and not self.derived:
            expected = "scratch or supernet with a named space: its weights are not the teacher's"
            hint = "leave space out: the space is then the teacher"
            raise SettingError("retrain.init", "inherited", expected, hint)
        if self.retrain.ensemble and self.teacher.model is None:
            expected = "0 without a teacher, who teaches its first members"
            raise SettingError("retrain.ensemble", self.retrain.ensemble, expected, "give teacher.model, or omit it")
        if self.search.steps > 1 and not self.derived:
            expected = "1 with a named space: it is the teacher that is cut in steps"
            raise SettingError("search.steps", self.search.steps, expected, "leave space out, or leave steps out")
        if self.search.rounds_of_teachers > 1 and not self.derived and not self.guided:
            expected = f"1 with search.engine={self.engine}, for which no teacher rates stages"
            rounds = self.search.rounds_of_teachers
            raise SettingError("search.rounds_of_teachers", rounds, expected, "use search.engine=exact")
        if self.blockwise.source == "average" and (self.derived or self.search.rounds_of_teachers > 1):
            expected = "teacher where the space is the teacher, and with search.rounds_of_teachers above 1"
            hint = "name a space, or leave rounds out" if self.derived else "leave search.rounds_of_teachers out"
            raise SettingError("blockwise.source", "average", expected, hint)
        if self.derived and self.supernet.checkpoint is not None:
            expected = "null where the space is the teacher: its supernet has the teacher's weights"
            hint = "name the space of these weights, or give the teacher's in teacher.checkpoint"
            raise SettingError("supernet.checkpoint", self.supernet.checkpoint, expected, hint)
        if self.derived and self.teacher.grey == "repeat":
            expected = "sum or null where the space is the teacher: its cuts see the data's channels"
            raise SettingError("teacher.grey", self.teacher.grey, expected, "leave it out, or name a space")
        if self.teacher.model is None and self.supernet.teacher_weight > 0:
            expected = "0 without a teacher"
            hint = "give teacher.model, or leave supernet.teacher_weight out"
            raise SettingError("supernet.teacher_weight", self.supernet.teacher_weight, expected, hint)

    @property
    def derived(self) -> bool:
        """Whether the space is the teacher itself."""
        return self.space is None

    @property
    def engine(self) -> Any:
        """What searches."""
        return self.search.engine or ("nsga2" if self.teacher.model is None else "exact")

    @property
    def guided(self) -> bool:
        """Whether the teacher's ratings guide the search."""
        return search_engine(self.engine).guided

    @property
    def init(self) -> Init:
        """Which weights students begin with."""
        return self.retrain.init or ("inherited" if self.derived else "scratch")

    def to_yaml(self) -> str:
        """Write all settings as YAML that ``nas-kd run`` reads back, but for a database's password."""
        import yaml

        settings = asdict(self)
        if self.search.storage is not None:
            settings["search"]["storage"] = without_password(self.search.storage)
        return yaml.safe_dump(settings, sort_keys=False)
