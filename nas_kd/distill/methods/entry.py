"""The entry of a named method."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from nas_kd.distill.task import Task
from nas_kd.distill.term import Recipe, Schedule, Term, Warmup
from nas_kd.errors import SettingError


@dataclass(frozen=True)
class Entry:
    """A method as users name it.

    Args:
        recipe: builds it from the task and its settings, which have the published values as defaults.
        needs: what it needs besides a student and labels, for the user.
        cost: cost of a step relative to a plain student step, for the user.
        source: paper.
    """

    recipe: Callable[..., Recipe]
    needs: str
    cost: str
    source: str

    @property
    def line(self) -> str:
        """Its description, one line."""
        return (inspect.getdoc(self.recipe) or "").partition("\n")[0]


def label_term(task: Task, weight: float | Schedule = 1.0) -> Term:
    """Return the task's label loss as the term "ce"."""
    return Term("ce", task.loss, weight, frozenset({"labels"}))


def with_labels(task: Task, ce: float, *others: Term) -> Recipe:
    """Return a recipe of the label loss and other terms; those of weight 0 are left out."""
    return Recipe.of([label_term(task, ce), *others])


def grown(method: str, weight: float, share: float) -> float | Schedule:
    """Return a weight that grows over the first share of the training; a share of 0 is none."""
    if not 0 <= share <= 1:
        raise SettingError(f"{method}.warmup", share, "0 to 1, a share of the training")
    return Warmup(weight, share) if share else weight


def check_share(field: str, value: float) -> None:
    """Check that a first stage takes more than nothing and less than all of the training."""
    if not 0 < value < 1:
        raise SettingError(field, value, "above 0 and below 1", "0.1 is a tenth of the epochs")
