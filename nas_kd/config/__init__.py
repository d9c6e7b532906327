"""All settings of the command line and of a config file: frozen dataclasses, checked when they are made."""

from __future__ import annotations

from nas_kd.config.checks import parse_budget
from nas_kd.config.data import DataConfig
from nas_kd.config.rank import RankConfig
from nas_kd.config.retrain import RetrainConfig
from nas_kd.config.search import BlockwiseConfig, SearchConfig
from nas_kd.config.supernet import DIVERGENCES, RULES, SupernetConfig, check_supernet
from nas_kd.config.teacher import TeacherConfig
from nas_kd.config.whole import Config

__all__ = [
    "DIVERGENCES",
    "RULES",
    "BlockwiseConfig",
    "Config",
    "DataConfig",
    "RankConfig",
    "RetrainConfig",
    "SearchConfig",
    "SupernetConfig",
    "TeacherConfig",
    "check_supernet",
    "parse_budget",
]
