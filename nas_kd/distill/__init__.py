"""How losses become training: terms with weights, recipes, targets, the task and the named methods."""

from nas_kd.distill.distiller import Distiller, Method
from nas_kd.distill.ensemble import LearnedEnsemble
from nas_kd.distill.injection import inject
from nas_kd.distill.methods import METHODS, Entry, describe_methods
from nas_kd.distill.own import Privileged
from nas_kd.distill.pair import Pair, Shapes
from nas_kd.distill.pairing import pair_of
from nas_kd.distill.task import Classification, Task
from nas_kd.distill.term import Decay, Phase, Recipe, Schedule, Term, Warmup
from nas_kd.distill.terms import TERMS
from nas_kd.distill.tree import SoftTree

__all__ = [
    "METHODS",
    "TERMS",
    "Classification",
    "Decay",
    "Distiller",
    "Entry",
    "LearnedEnsemble",
    "Method",
    "Pair",
    "Phase",
    "Privileged",
    "Recipe",
    "Schedule",
    "Shapes",
    "SoftTree",
    "Task",
    "Term",
    "Warmup",
    "describe_methods",
    "inject",
    "pair_of",
]
