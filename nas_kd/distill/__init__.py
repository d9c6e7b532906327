"""From losses to training: weighted terms, recipes, targets, tasks and the named methods."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas_kd.lazy import lazy

if TYPE_CHECKING:
    from nas_kd.distill.balanced import drawn as drawn
    from nas_kd.distill.distiller import Distiller as Distiller
    from nas_kd.distill.distiller import Method as Method
    from nas_kd.distill.ensemble import LearnedEnsemble as LearnedEnsemble
    from nas_kd.distill.injection import inject as inject
    from nas_kd.distill.methods import METHODS as METHODS
    from nas_kd.distill.methods import Entry as Entry
    from nas_kd.distill.methods import describe_methods as describe_methods
    from nas_kd.distill.methods import form_of as form_of
    from nas_kd.distill.own import Privileged as Privileged
    from nas_kd.distill.pair import Pair as Pair
    from nas_kd.distill.pair import Shapes as Shapes
    from nas_kd.distill.paired import Paired as Paired
    from nas_kd.distill.paired import pairs_in as pairs_in
    from nas_kd.distill.pairing import pair_of as pair_of
    from nas_kd.distill.task import Task as Task
    from nas_kd.distill.tasks import Classification as Classification
    from nas_kd.distill.tasks import MultiLabel as MultiLabel
    from nas_kd.distill.tasks import Regression as Regression
    from nas_kd.distill.tasks import task_of as task_of
    from nas_kd.distill.term import Decay as Decay
    from nas_kd.distill.term import Phase as Phase
    from nas_kd.distill.term import Recipe as Recipe
    from nas_kd.distill.term import Schedule as Schedule
    from nas_kd.distill.term import Term as Term
    from nas_kd.distill.term import Warmup as Warmup
    from nas_kd.distill.terms import TERMS as TERMS
    from nas_kd.distill.tree import SoftTree as SoftTree

_HOME = {
    "Classification": "tasks",
    "Decay": "term",
    "Distiller": "distiller",
    "Entry": "methods",
    "LearnedEnsemble": "ensemble",
    "METHODS": "methods",
    "Method": "distiller",
    "MultiLabel": "tasks",
    "Pair": "pair",
    "Paired": "paired",
    "Phase": "term",
    "Privileged": "own",
    "Recipe": "term",
    "Regression": "tasks",
    "Schedule": "term",
    "Shapes": "pair",
    "SoftTree": "tree",
    "TERMS": "terms",
    "Task": "task",
    "Term": "term",
    "Warmup": "term",
    "describe_methods": "methods",
    "drawn": "balanced",
    "form_of": "methods",
    "inject": "injection",
    "pair_of": "pairing",
    "pairs_in": "paired",
    "task_of": "tasks",
}
__all__ = [*_HOME]
__getattr__, __dir__ = lazy(__name__, _HOME)
