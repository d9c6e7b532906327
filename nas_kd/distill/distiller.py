"""Turns a method into the loss of a training step."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nas_kd.distill.methods import METHODS, TERMS, term
from nas_kd.distill.task import Classification
from nas_kd.distill.term import Recipe, Term
from nas_kd.errors import SettingError, nearest
from nas_kd.nn.output import Output

Method = str | Recipe | Sequence[Term | tuple[str, float]]


class Distiller:
    """The loss of a method: ``loss, parts = distiller(student, target, y, progress)``.

    Args:
        method: a name out of ``METHODS``; a list of terms and of (name, weight), such as
            ``[("ce", 0.1), ("kd_ls", 9), ("at", 500)]``; or a Recipe.
        task: gives the label loss; default ``Classification()``.
        settings: settings of a named method, such as ``temperature=2.0``.

    Attributes:
        needs: what is needed of "labels", "logits", "stages", "pre", "pooled"; a teacher only where there
            is more than "labels".
        task: the task.
        recipe: the terms and weights.

    Raises:
        SettingError: unknown method, term or setting, or a value outside its range.
    """

    def __init__(
        self, method: Method = "kd_ls", task: Classification | None = None, **settings: float
    ) -> None:
        self.task = Classification() if task is None else task
        self.recipe = _recipe(method, self.task, settings)
        self.needs = self.recipe.needs

    def __repr__(self) -> str:
        return f"Distiller({self.recipe!r}, {self.task!r})"

    def __call__(
        self, student: Tensor | Output, target: Tensor | Output | None, y: Tensor, progress: float = 1.0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch.

        Args:
            student: (B, C) logits, or an Output when features are needed.
            target: the teacher's; None when only labels are needed.
            y: (B,) labels.
            progress: share of the training that is done, 0..1.

        Returns:
            The weighted sum, a scalar, and every term's value before its weight, detached, by name.

        Raises:
            FloatingPointError: the loss is NaN or infinite; names the terms that are.
            ValueError: something needed is missing, or shapes do not fit.
        """
        loss: Tensor | None = None
        parts: dict[str, Tensor] = {}
        for item in self.recipe.at(progress).terms:
            value = item(student, target, y)
            parts[item.name] = value.detach()
            weighted = item.weight_at(progress) * value
            loss = weighted if loss is None else loss + weighted
        assert loss is not None  # a recipe has no stage without terms
        # one number is fetched from the device a step; the terms only when it is bad
        if not math.isfinite(loss.item()):
            bad = {name: float(value) for name, value in parts.items() if not torch.isfinite(value)}
            named = ", ".join(f"{name} = {value}" for name, value in bad.items()) or "the sum overflows"
            raise FloatingPointError(f"the loss is not finite at progress {progress:.3f}: {named}")
        return loss, parts


def _recipe(method: Method, task: Classification, settings: dict[str, float]) -> Recipe:
    if isinstance(method, str):
        return _named(method, task, settings)
    if settings:
        legal = "no settings beside a list or a recipe"
        raise SettingError("method settings", sorted(settings), legal, "set them in the terms")
    if isinstance(method, Recipe):
        return method
    terms = []
    for item in method:
        if isinstance(item, Term):
            terms.append(item)
            continue
        if isinstance(item, str) or len(item) != 2:
            raise SettingError("method", item, "a list of terms and of (name, weight)", "add the weight")
        name, weight = item
        if name not in TERMS and name != "ce":
            raise SettingError("method", name, "the name of a term", nearest(str(name), ["ce", *TERMS]))
        terms.append(term(name, task, _number(name, weight)))
    return Recipe.of(terms)


def _named(method: str, task: Classification, settings: dict[str, float]) -> Recipe:
    if method not in METHODS:
        raise SettingError("method", method, "the name of a method", nearest(method, METHODS))
    legal = [name for name in inspect.signature(METHODS[method]).parameters if name != "task"]
    for name, value in settings.items():
        if name not in legal:
            mend = nearest(name, legal) if legal else f"{method} has no settings"
            raise SettingError(f"{method}.{name}", value, f"a setting of {method}", mend)
        _number(f"{method}.{name}", value)
    if not settings.get("temperature", 1) > 0:  # before the first epoch, not in it
        raise SettingError(f"{method}.temperature", settings["temperature"], "a number above 0")
    return METHODS[method](task, **settings)


def _number(field: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise SettingError(field, value, "a finite number of at least 0")
    return value
