"""The entry of a named method."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from nas_kd.distill.task import Task
from nas_kd.distill.term import Recipe, Schedule, Term, Warmup
from nas_kd.errors import SettingError
from nas_kd.losses.labels import KINDS


@dataclass(frozen=True)
class Entry:
    """A named method.

    Args:
        recipe: builds it from the task and its settings, which have the published values as defaults.
        needs: what it needs besides a student and labels.
        cost: cost of a step relative to a plain student step.
        source: paper.
        kinds: the kinds of labels that it makes sense for.
        texts: whether it compares the layers of text encoders, and so is none for images.
    """

    recipe: Callable[..., Recipe]
    needs: str
    cost: str
    source: str
    kinds: tuple[str, ...] = KINDS
    texts: bool = False

    @property
    def line(self) -> str:
        """Its description in one line."""
        return (inspect.getdoc(self.recipe) or "").partition("\n")[0]


def label_term(task: Task, weight: float | Schedule = 1.0) -> Term:
    """Return the task's label loss as the term "ce"."""
    return Term("ce", task.loss, weight, frozenset({"labels"}))


def with_labels(task: Task, ce: float, *others: Term) -> Recipe:
    """Return a recipe of the label loss and other terms; terms of weight 0 are dropped."""
    return Recipe.of([label_term(task, ce), *others])


def warmed_up(method: str, weight: float, share: float) -> float | Schedule:
    """Return a weight with a linear warm-up over the first share of the training; 0 disables the warm-up."""
    if not 0 <= share <= 1:
        raise SettingError(f"{method}.warmup", share, "0 to 1, as a share of the training")
    return Warmup(weight, share) if share else weight


def check_share(field: str, value: float) -> None:
    """Check that the first phase takes a part of the training, but not all of it."""
    if not 0 < value < 1:
        raise SettingError(field, value, "above 0 and below 1", "0.1 is a tenth of the epochs")
