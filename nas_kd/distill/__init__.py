"""How losses become training: terms with weights, recipes, targets, the task and the named methods."""

from nas_kd.distill.distiller import Distiller, Method
from nas_kd.distill.methods import METHODS, TERMS
from nas_kd.distill.source import (
    CachedTeacher,
    LiveTeacher,
    LogitCache,
    TargetSource,
    TeacherEnsemble,
    target_source,
)
from nas_kd.distill.task import Classification
from nas_kd.distill.term import Phase, Recipe, Schedule, Term, Warmup

__all__ = [
    "METHODS",
    "TERMS",
    "CachedTeacher",
    "Classification",
    "Distiller",
    "LiveTeacher",
    "LogitCache",
    "Method",
    "Phase",
    "Recipe",
    "Schedule",
    "TargetSource",
    "TeacherEnsemble",
    "Term",
    "Warmup",
    "target_source",
]
