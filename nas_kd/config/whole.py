"""All settings together: what a config file holds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from nas_kd.config.checks import checked_objectives, without_password
from nas_kd.config.data import DataConfig
from nas_kd.config.rank import RankConfig
from nas_kd.config.retrain import RetrainConfig
from nas_kd.config.search import BlockwiseConfig, SearchConfig
from nas_kd.config.supernet import SupernetConfig
from nas_kd.config.teacher import TeacherConfig
from nas_kd.errors import SettingError
from nas_kd.runtime.device import check_runtime

MOST_HOURS = 100_000  # eleven years; timers count seconds in 64 bits of nanoseconds


@dataclass(frozen=True)
class Config:
    """Everything a run depends on."""

    space: str = "digits"
    """search space: a name such as resnet_cifar, or the path of a .py file that defines SPACE"""
    run: str | None = None
    """run folder; null is runs/ and the name of the config file"""
    seed: int = 0
    """seed of everything but the data's splits and views"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps"""
    precision: str = "32-true"
    """32-true or bf16-mixed"""
    threads: int | None = None
    """CPU threads of this process; null leaves it to torch"""
    workers: int = 2
    """one-thread processes for independent trainings; 1 stays in this process"""
    on_nan: str = "stop"
    """stop or skip: what a training does at a step whose loss or gradient is not finite"""
    max_hours: float | None = None
    """stop after so many hours, with everything saved for the same command to go on (exit code 124), for queues"""
    data: DataConfig = field(default_factory=DataConfig)
    """Images"""
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    """Teacher"""
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
        if self.max_hours is not None and not 0 < self.max_hours < MOST_HOURS:
            legal = f"above 0 and below {MOST_HOURS:,}, or null"
            raise SettingError("max_hours", self.max_hours, legal, "leave it out")
        if self.workers < 1:
            raise SettingError("workers", self.workers, "an integer of at least 1", "use workers=1")
        if self.teacher.model is None and self.search.engine == "exact":
            legal = "nsga2, coarse or random without a teacher"
            raise SettingError("search.engine", "exact", legal, "give teacher.model, or search.engine=nsga2")
        checked_objectives(self.search.objectives, self.engine)
        if self.teacher.model is None and self.supernet.teacher_weight > 0:
            legal = "0 without a teacher"
            mend = "give teacher.model, or leave supernet.teacher_weight out"
            raise SettingError("supernet.teacher_weight", self.supernet.teacher_weight, legal, mend)

    @property
    def engine(self) -> str:
        """What searches."""
        return self.search.engine or ("nsga2" if self.teacher.model is None else "exact")

    @property
    def method(self) -> str | list[tuple[str, float]]:
        """How students are trained in the end."""
        return self.retrain.method or ("ce" if self.teacher.model is None else "kd_ls")

    def to_yaml(self) -> str:
        """Write all settings as YAML that ``nas-kd run`` reads back, but for a database's password."""
        import yaml

        settings = asdict(self)
        if self.search.storage is not None:
            settings["search"]["storage"] = without_password(self.search.storage)
        return yaml.safe_dump(settings, sort_keys=False)
