"""The loss of a training step, given a method."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nas_kd.config.names import imported
from nas_kd.distill.adapters import middle
from nas_kd.distill.methods import METHODS
from nas_kd.distill.pair import Pair
from nas_kd.distill.task import Task
from nas_kd.distill.tasks.classification import Classification
from nas_kd.distill.term import MIDDLE, Recipe, Term
from nas_kd.distill.terms import TERMS, term
from nas_kd.errors import SettingError, nearest
from nas_kd.nn.output import Output
from nas_kd.runtime.seeds import seed_for

if TYPE_CHECKING:
    from nas_kd.data import Batch
    from nas_kd.teacher.targets import TargetSource

Method = str | Recipe | Sequence[Term | tuple[str, float]]


class Distiller:
    """The loss of a method: ``loss, parts = distiller(student, target, y, progress)``.

    Args:
        method: a name in ``METHODS``; ``package.module:object``, a Recipe or a function from a task to one; a list
            of terms and of (name, weight), such as ``[("ce", 0.1), ("kd", 0.9), ("at", 500)]``; or a Recipe.
        task: provides the label loss; default ``Classification()``.
        settings: settings of a named method, such as ``temperature=2.0``.

    Attributes:
        needs: the required subset of "labels", "batch", "logits", "stages", "pre", "pooled".
        recipe: the terms and weights.
        trained: modules trained alongside the student, by name; set by :meth:`bind`.
        source: where targets come from; set by :meth:`bind`.

    Raises:
        SettingError: unknown method, term or setting, or a value outside its range.
    """

    def __init__(self, method: Method = "kd", task: Task | None = None, **settings: Any) -> None:
        self.task = Classification() if task is None else task
        _check_method(method, self.task)
        self.recipe = _recipe(method, self.task, settings)
        _check_terms(self.recipe, self.task)
        self.needs = self.recipe.needs
        self.trained = nn.ModuleDict()
        self.source: TargetSource | None = None
        self._upstream: dict[int, frozenset[str]] = {}
        self._pair: Pair | None = None

    def __repr__(self) -> str:
        return f"Distiller({self.recipe!r}, {self.task!r})"

    def bind(self, pair: Pair) -> Distiller:
        """Build the modules that the method trains alongside the student, and reject pairs that it cannot compare.

        Raises:
            SettingError: the method cannot compare these networks.
        """
        self.source = pair.source
        self._pair = pair
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(pair.seed, "method"))
            for item in self.recipe.terms:
                if item.check is not None:
                    item.check(pair)
                if item.module is not None and item.key not in self.trained:
                    self.trained[item.key] = item.module(pair)
            if self.recipe.source is not None:
                self.source = self.recipe.source(pair)
            if self.source is not None and self.source.trained is not None:
                self.trained["source"] = self.source.trained
            if self.recipe.inputs is not None:
                self.trained["inputs"] = self.recipe.inputs(pair)
        self._upstream = {
            phase.until: upstream(pair, phase.until) for phase in self.recipe.phases if phase.until is not None
        }
        return self

    def enter(self, progress: float) -> bool:
        """Prepare the bound student for the current phase; return whether it needs a forward pass of the student."""
        phase = self.recipe.at(progress)
        if self._pair is not None and self._upstream:
            trained = None if phase.until is None else self._upstream[phase.until]
            for name, module in self._pair.model.named_modules():
                own = [f"{name}.{key}".lstrip(".") for key, _ in module.named_parameters(recurse=False)]
                if own:  # frozen layers must keep their statistics too
                    module.train(trained is None or any(key in trained for key in own))
        return phase.student

    def step(
        self, batch: Batch, progress: float, autocast: AbstractContextManager[Any] | None = None
    ) -> dict[str, Tensor]:
        """Accumulate the gradients of one batch in the bound student and in the modules trained alongside it.

        Args:
            batch: images and labels on the student's device.
            progress: fraction of the training that is done, 0..1.

        Returns:
            The terms before their weights and, last, ``loss``, all detached.
        """
        if self._pair is None:
            raise ValueError("bind the distiller before its first step")
        if "inputs" in self.trained:
            batch = self.trained["inputs"](batch)
        needs_student = self.enter(progress)
        taught = any(term.needs_target for term in self.recipe.at(progress).terms)
        target = self.target(batch) if taught else None
        with nullcontext() if autocast is None else autocast:
            student = self._pair.forward(batch.x) if needs_student else None
            loss, parts = self._losses(student, target, batch.y, progress, batch)
        loss.backward()
        return parts | {"loss": loss.detach()}  # the terms first, so that a NaN is reported with its term

    def target(self, batch: Batch) -> Tensor | Output | None:
        """Return the bound source's targets for a batch: (B, C) logits, or logits and features."""
        if self.source is None:
            return None
        return self.source.features(batch) if self.recipe.needs_target_features else self.source.logits(batch)

    def after_epoch(self, epochs: int) -> None:
        """Run the updates between epochs of the modules trained alongside the student, such as grafting."""
        for module in self.trained.values():
            act = getattr(module, "after_epoch", None)
            if act is not None:
                act(epochs)

    def __call__(
        self,
        student: Tensor | Output | None,
        target: Tensor | Output | None,
        y: Tensor,
        progress: float = 1.0,
        batch: Batch | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch.

        Args:
            student: (B, C) logits, or an Output if features are needed.
            target: the teacher's; None if only labels are needed.
            y: (B,) labels.
            progress: fraction of the training that is done, 0..1.
            batch: the whole batch, for terms that need it.

        Returns:
            The weighted sum, a scalar, and every term's value before its weight, detached, by name.

        Raises:
            FloatingPointError: the loss is NaN or infinite, with the names of these terms. Not on a GPU, where a
                check would synchronise with the device.
            ValueError: something needed is missing, or shapes do not fit.
        """
        loss, parts = self._losses(student, target, y, progress, batch)
        if loss.device.type == "cpu" and not math.isfinite(loss.item()):
            nonfinite = {name: float(value) for name, value in parts.items() if not torch.isfinite(value)}
            named = ", ".join(f"{name} = {value}" for name, value in nonfinite.items()) or "the sum overflows"
            raise FloatingPointError(f"the loss is not finite at progress {progress:.3f}: {named}")
        return loss, parts

    def _losses(
        self,
        student: Tensor | Output | None,
        target: Tensor | Output | None,
        y: Tensor,
        progress: float,
        batch: Batch | None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute what `__call__` returns, without its check: the training loop has its own, and may skip the step."""
        loss: Tensor | None = None
        parts: dict[str, Tensor] = {}
        for item in self.recipe.at(progress).terms:
            module = self.trained[item.key] if item.key in self.trained else None
            value = item(student, target, y, batch, module)
            parts[item.name] = value.detach()
            weighted = item.weight_at(progress) * value
            loss = weighted if loss is None else loss + weighted
        assert loss is not None  # every phase has terms
        return loss, parts


def upstream(pair: Pair, stage: int) -> frozenset[str]:
    """Return the names of the student's parameters that its feature at ``stage`` depends on."""
    training = pair.model.training
    pair.model.eval()
    device = next(pair.model.parameters()).device
    parameters = dict(pair.model.named_parameters())
    stages = pair.forward(torch.zeros(2, *pair.image, device=device)).stages
    feature = stages[middle(len(stages)) if stage == MIDDLE else stage]
    found = torch.autograd.grad(feature.sum(), list(parameters.values()), allow_unused=True)
    pair.model.train(training)
    return frozenset(name for name, grad in zip(parameters, found, strict=True) if grad is not None)


def _check_method(method: Method, task: Task) -> None:
    """Refuse a named method that makes no sense for the labels."""
    if isinstance(method, str) and method in METHODS and task.kind not in METHODS[method].kinds:
        fitting = ", ".join(name for name, entry in METHODS.items() if task.kind in entry.kinds)
        raise SettingError("method", method, f"a method for {task.kind} labels: {fitting}", "use kd")


def _check_terms(recipe: Recipe, task: Task) -> None:
    """Refuse terms that make no sense for the labels."""
    for item in recipe.terms:
        if task.kind not in item.kinds:
            fitting = ", ".join(["ce", *(name for name, known in TERMS.items() if task.kind in known.kinds)])
            raise SettingError("method", item.name, f"losses for {task.kind} labels: {fitting}", "use kd")


def _recipe(method: Method, task: Task, settings: dict[str, Any]) -> Recipe:
    if isinstance(method, str):
        return _named(method, task, settings)
    if settings:
        expected = "no settings for a list or a recipe"
        raise SettingError("method settings", sorted(settings), expected, "set them in the terms")
    if isinstance(method, Recipe):
        return method
    if not isinstance(method, Sequence) or not method:
        expected = "the name of a method, a Recipe, or a list of terms and of (name, weight)"
        raise SettingError("method", method, expected, "`nas-kd methods` lists them")
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


def _named(method: str, task: Task, settings: dict[str, Any]) -> Recipe:
    if method not in METHODS and ":" not in method:
        raise SettingError("method", method, "the name of a method", nearest(method, METHODS))
    recipe = METHODS[method].recipe if method in METHODS else imported("method", method)
    if isinstance(recipe, Recipe):
        return _recipe(recipe, task, settings)
    if not callable(recipe):
        raise SettingError("method", method, "a Recipe, or a function from a task and settings to one")
    expected = {name: entry for name, entry in inspect.signature(recipe).parameters.items() if name != "task"}
    for name, value in settings.items():
        if name not in expected:
            hint = nearest(name, expected) if expected else f"{method} has no settings"
            named = f"a setting of {method}: {', '.join(expected)}" if expected else f"no settings for {method}"
            raise SettingError(f"{method}.{name}", value, named, hint)
        _check(method, name, value, expected[name].default)
    made: Recipe = recipe(task, **settings)
    return made


def _check(method: str, name: str, value: object, default: Any) -> None:
    """Check that a setting has the type of its default."""
    field = f"{method}.{name}"
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise SettingError(field, value, "true or false")
    elif isinstance(default, str):
        if not isinstance(value, str):
            raise SettingError(field, value, f"a word such as {default!r}")
    elif default < 0:  # any sign, such as the order of a divergence
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise SettingError(field, value, "a finite number")
    elif isinstance(default, int):  # counts; 0 classes per batch means ordinary batches, 0 anchors all samples
        least = 0 if field in ("cc.classes", "rkd.anchors") else 1
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value % 1 or not least <= value < math.inf:
            raise SettingError(field, value, f"a whole number of at least {least}")
    elif not _number(field, value) and name == "temperature":  # before the first epoch, not in it
        raise SettingError(field, value, "a number above 0")


def _number(field: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise SettingError(field, value, "a finite number of at least 0")
    return value
