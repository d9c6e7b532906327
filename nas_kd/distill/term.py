"""A term is a loss with a weight and what it needs; a recipe is a list of training stages made of terms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nas_kd.errors import SettingError
from nas_kd.nn.output import Output

Schedule = Callable[[float], float]
FEATURES = ("logits", "stages", "pre", "pooled")
NEEDS = frozenset({"labels", *FEATURES})


@dataclass(frozen=True)
class Warmup:
    """A weight that grows linearly from 0 and then stays.

    Args:
        weight: final weight.
        share: share of the training, 0 < share <= 1, after which it is reached.
    """

    weight: float
    share: float

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise SettingError("share", self.share, "0 < share <= 1")

    def __call__(self, progress: float) -> float:
        return self.weight * min(1.0, progress / self.share)


@dataclass(frozen=True, repr=False)
class Term:
    """One weighted loss.

    Args:
        name: its name in logs and errors.
        loss: called as loss(student, teacher) on what ``needs`` names, as loss(student, teacher, labels)
            with "labels" too, and as loss(student logits, labels) with "labels" alone. For "stages" and
            "pre" it is called once a stage, and the stages' losses are added.
        weight: a number, or a function of the training's progress in 0..1.
        needs: "labels", and at most one of "logits", "stages", "pre", "pooled".

    Raises:
        SettingError: ``needs`` holds an unknown name, two kinds of feature, or nothing.
    """

    name: str
    loss: Callable[..., Tensor]
    weight: float | Schedule = 1.0
    needs: frozenset[str] = frozenset({"logits"})

    def __post_init__(self) -> None:
        object.__setattr__(self, "needs", frozenset(self.needs))
        if not self.needs or self.needs - NEEDS or len(self.needs - {"labels"}) > 1:
            legal = "labels and at most one of " + ", ".join(FEATURES)
            raise SettingError(f"{self.name}.needs", sorted(self.needs), legal)

    def __repr__(self) -> str:
        # recorded in run folders: the default would hold addresses that change with the process
        weight = _describe(self.weight)
        return f"Term({self.name!r}, {_describe(self.loss)}, {weight}, needs={sorted(self.needs)})"

    def weight_at(self, progress: float) -> float:
        """Return the weight at a moment of the training, 0..1."""
        return float(self.weight(progress)) if callable(self.weight) else float(self.weight)

    def __call__(self, student: Tensor | Output, target: Tensor | Output | None, y: Tensor) -> Tensor:
        """Return the loss before its weight.

        Args:
            student: (B, C) logits or an Output.
            target: the teacher's; None for a term that needs labels only.
            y: (B,) labels.

        Returns:
            Scalar.

        Raises:
            ValueError: something it needs is missing, or the stages differ in number.
        """
        labels = (y,) if "labels" in self.needs else ()
        kind = next(iter(self.needs - {"labels"}), None)
        if kind is None:
            return self.loss(self._take(student, "logits", "student"), *labels)
        s, t = self._take(student, kind, "student"), self._take(target, kind, "teacher")
        if isinstance(s, Tensor):
            return self.loss(s, t, *labels)
        if len(s) != len(t):
            raise ValueError(f"{self.name}: the student has {len(s)} {kind}, the teacher {len(t)}")
        return torch.stack([self.loss(a, b, *labels) for a, b in zip(s, t, strict=True)]).sum()

    def _take(self, output: Tensor | Output | None, kind: str, who: str) -> Any:
        if isinstance(output, Output):
            return getattr(output, kind)
        if output is None or kind != "logits":
            had = "nothing" if output is None else "logits only"
            raise ValueError(f"{self.name} needs the {who}'s {kind}, but was given {had}")
        return output


@dataclass(frozen=True)
class Phase:
    """One training stage of a recipe: terms that hold for a share of the training.

    Args:
        terms: what is trained.
        share: length relative to the recipe's other stages, above 0.
    """

    terms: tuple[Term, ...]
    share: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """Training stages in their order, most often one.

    Args:
        phases: the stages.

    Raises:
        SettingError: no stage, no term, a share that is not positive, or two terms of one name in a stage.
    """

    phases: tuple[Phase, ...]
    needs: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        if not self.phases or not all(phase.terms for phase in self.phases):
            raise SettingError("recipe", self.phases, "at least one training stage with at least one term")
        for phase in self.phases:
            names = [term.name for term in phase.terms]
            if phase.share <= 0:
                raise SettingError("recipe.share", phase.share, "a number above 0")
            if len(set(names)) < len(names):
                raise SettingError("recipe.terms", names, "different names", "add the weights of equal terms")
        needs = frozenset[str]().union(*(term.needs for phase in self.phases for term in phase.terms))
        object.__setattr__(self, "needs", needs)

    @staticmethod
    def of(terms: Sequence[Term]) -> Recipe:
        """Return a recipe of one training stage; terms whose weight is the number 0 are left out."""
        return Recipe((Phase(tuple(term for term in terms if callable(term.weight) or term.weight != 0)),))

    def at(self, progress: float) -> Phase:
        """Return the stage that holds at a moment of the training, 0..1."""
        passed, total = 0.0, sum(phase.share for phase in self.phases)
        for phase in self.phases:
            passed += phase.share / total
            if progress < passed:
                return phase
        return self.phases[-1]


def _describe(thing: Any) -> str:
    """A repr without addresses."""
    if isinstance(thing, partial):
        settings = [f"{name}={value!r}" for name, value in sorted(thing.keywords.items())]
        return f"{_describe(thing.func)}({', '.join([*map(repr, thing.args), *settings])})"
    owner = getattr(thing, "__self__", None)
    if owner is not None:
        return f"{owner!r}.{thing.__name__}"
    return getattr(thing, "__qualname__", None) or repr(thing)
