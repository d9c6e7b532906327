"""Find, retrain and explain the student network that a fixed teacher teaches best within a budget."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nas_kd.version import __version__

if TYPE_CHECKING:
    from nas_kd.analyse.report import report as report
    from nas_kd.data import Data as Data
    from nas_kd.data import load_data as load_data
    from nas_kd.data.config import DataConfig as DataConfig
    from nas_kd.derive.config import DeriveConfig as DeriveConfig
    from nas_kd.derive.space import teacher_space as teacher_space
    from nas_kd.distill import Classification as Classification
    from nas_kd.distill import MultiLabel as MultiLabel
    from nas_kd.distill import Regression as Regression
    from nas_kd.errors import SettingError as SettingError
    from nas_kd.export import export as export
    from nas_kd.export import load_student as load_student
    from nas_kd.export import save_student as save_student
    from nas_kd.ranking.config import RankConfig as RankConfig
    from nas_kd.ranking.rank import rank as rank
    from nas_kd.rate import rate_blockwise as rate_blockwise
    from nas_kd.rate.units import rate_units as rate_units
    from nas_kd.runs.run import Run as Run
    from nas_kd.runtime.stop import Stopped as Stopped
    from nas_kd.runtime.stop import time_limit as time_limit
    from nas_kd.searcher.config import SearchConfig as SearchConfig
    from nas_kd.searcher.latency_table import latency_template as latency_template
    from nas_kd.searcher.result import SearchResult as SearchResult
    from nas_kd.searcher.rounds import teacher_rounds as teacher_rounds
    from nas_kd.searcher.search import search as search
    from nas_kd.searcher.steps import cut_in_steps as cut_in_steps
    from nas_kd.searcher.weighting import stage_weights as stage_weights
    from nas_kd.solve import exact_front as exact_front
    from nas_kd.space import Arch as Arch
    from nas_kd.space import load_space as load_space
    from nas_kd.supernet import Supernet as Supernet
    from nas_kd.supernet import calibrate as calibrate
    from nas_kd.teacher import Teacher as Teacher
    from nas_kd.teacher import load_teacher as load_teacher
    from nas_kd.train import load_supernet as load_supernet
    from nas_kd.train import train_supernet as train_supernet
    from nas_kd.train import train_teacher as train_teacher
    from nas_kd.train.blockwise_config import BlockwiseConfig as BlockwiseConfig
    from nas_kd.train.config import RetrainConfig as RetrainConfig
    from nas_kd.train.grow_ensemble import grow_ensemble as grow_ensemble
    from nas_kd.train.repair import repair_units as repair_units
    from nas_kd.train.repair_config import RepairConfig as RepairConfig
    from nas_kd.train.repair_student import repair_student as repair_student
    from nas_kd.train.retrain import retrain as retrain
    from nas_kd.train.supernet_config import SupernetConfig as SupernetConfig
    from nas_kd.train.teacher_config import TeacherConfig as TeacherConfig
    from nas_kd.train.tune_int8 import tune_int8 as tune_int8

# public name -> module; torch and timm load with the first name that needs them, not with `import nas_kd`
_HOME = {
    "Arch": "space",
    "BlockwiseConfig": "train.blockwise_config",
    "Classification": "distill",
    "Data": "data",
    "DataConfig": "data.config",
    "DeriveConfig": "derive.config",
    "MultiLabel": "distill",
    "RankConfig": "ranking.config",
    "Regression": "distill",
    "RepairConfig": "train.repair_config",
    "RetrainConfig": "train.config",
    "Run": "runs.run",
    "SearchConfig": "searcher.config",
    "SearchResult": "searcher.result",
    "SettingError": "errors",
    "Stopped": "runtime.stop",
    "Supernet": "supernet",
    "SupernetConfig": "train.supernet_config",
    "Teacher": "teacher",
    "TeacherConfig": "train.teacher_config",
    "calibrate": "supernet",
    "cut_in_steps": "searcher.steps",
    "teacher_rounds": "searcher.rounds",
    "grow_ensemble": "train.grow_ensemble",
    "exact_front": "solve",
    "latency_template": "searcher.latency_table",
    "load_data": "data",
    "load_space": "space",
    "load_student": "export",
    "load_supernet": "train",
    "load_teacher": "teacher",
    "rank": "ranking.rank",
    "rate_blockwise": "rate",
    "rate_units": "rate.units",
    "repair_student": "train.repair_student",
    "repair_units": "train.repair",
    "report": "analyse.report",
    "retrain": "train.retrain",
    "save_student": "export",
    "search": "searcher.search",
    "stage_weights": "searcher.weighting",
    "teacher_space": "derive.space",
    "time_limit": "runtime.stop",
    "train_supernet": "train",
    "train_teacher": "train",
    "tune_int8": "train.tune_int8",
}
_ROOMS = tuple(
    "analyse blocks config cost data derive distill errors export losses nn pipeline"
    " ranking rate runs runtime searcher solve space supernet teacher train".split()
)
__all__ = [*_HOME, *_ROOMS, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"nas_kd.{_HOME[name]}"), name)
    if name in _ROOMS:  # `nas_kd.losses.kd` without an import of its own
        return import_module(f"nas_kd.{name}")
    raise AttributeError(f"module 'nas_kd' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
