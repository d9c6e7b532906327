"""A term is a weighted loss with its inputs; a recipe is a list of training phases made of terms."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nas_kd.distill.schedule import Decay, Schedule, Warmup
from nas_kd.errors import SettingError
from nas_kd.losses.labels import KINDS
from nas_kd.nn.output import Output

if TYPE_CHECKING:
    from nas_kd.data import Batch, Data
    from nas_kd.distill.pair import Pair
    from nas_kd.teacher.targets import TargetSource

__all__ = ["Decay", "Phase", "Recipe", "Schedule", "Term", "Warmup"]

FEATURES = ("logits", "stages", "pre", "pooled")
NEEDS = frozenset({"labels", "batch", *FEATURES})
SIDES = ("both", "student", "teacher")
MIDDLE = -1  # the student's middle stage


def _call(module: nn.Module, *inputs: Any) -> Tensor:
    value: Tensor = module(*inputs)
    return value


@dataclass(frozen=True, repr=False)
class Term:
    """One weighted loss.

    Args:
        name: its name in logs and errors.
        loss: called as loss(student, teacher) on the features in ``needs``, as loss(student, teacher, labels) with
            "labels" too, and as loss(student logits, labels) with only "labels". For "stages" and "pre" it is called
            once per stage, and the losses are added.
        weight: a number, or a function of the training's progress in 0..1.
        needs: "labels", "batch" (the whole batch, passed last), and features: one of "logits", "stages", "pre",
            "pooled"; with several the loss gets whole Outputs.
        side: "both", or the only side whose features are passed: "student" or "teacher".
        whole: pass all stages as a list in one call instead of one call per stage.
        module: builds the module that the term trains alongside the student, from static shapes; the loss is then
            called as loss(module, ...), by default module(...), on all stages together.
        key: name of that module in the method; terms with the same key share it. Default: ``name``.
        check: rejects pairs that the loss cannot compare.
        kinds: the kinds of labels that it makes sense for.
        texts: whether its features are those of text encoders, whose batch says what is padding.

    Raises:
        SettingError: ``needs`` or ``side`` has an unknown name, or ``needs`` is empty.
    """

    name: str
    loss: Callable[..., Tensor] = _call
    weight: float | Schedule = 1.0
    needs: Set[str] = frozenset({"logits"})
    side: str = "both"
    whole: bool = False
    module: Callable[[Pair], nn.Module] | None = None
    key: str = ""
    check: Callable[[Pair], None] | None = None
    kinds: tuple[str, ...] = KINDS
    texts: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "needs", frozenset(self.needs))
        object.__setattr__(self, "key", self.key or self.name)
        if not self.needs or self.needs - NEEDS:
            expected = "some of " + ", ".join(sorted(NEEDS))
            raise SettingError(f"{self.name}.needs", sorted(self.needs), expected)
        if self.side not in SIDES:
            raise SettingError(f"{self.name}.side", self.side, ", ".join(SIDES))

    def __repr__(self) -> str:
        # recorded in run folders: the default repr has memory addresses
        made = "" if self.module is None else f", module={_describe(self.module)}"
        weight = _describe(self.weight)
        return f"Term({self.name!r}, {_describe(self.loss)}, {weight}, needs={sorted(self.needs)}{made})"

    @property
    def features(self) -> frozenset[str]:
        """The features it needs."""
        return frozenset(self.needs) & frozenset(FEATURES)

    @property
    def needs_target(self) -> bool:
        """Whether it needs targets."""
        return bool(self.features) and self.side != "student"

    def weight_at(self, progress: float) -> float:
        """Return the weight at a training progress in 0..1."""
        return float(self.weight(progress)) if callable(self.weight) else float(self.weight)

    def __call__(
        self,
        student: Tensor | Output | None,
        target: Tensor | Output | None,
        y: Tensor,
        batch: Batch | None = None,
        module: nn.Module | None = None,
    ) -> Tensor:
        """Return the loss before its weight.

        Args:
            student: (B, C) logits or an Output; None for a term with side "teacher".
            target: the teacher's; None for a term without targets.
            y: (B,) labels.
            batch: for a term that needs it.
            module: the result of ``Term.module``.

        Raises:
            ValueError: something it needs is missing, or the stages differ in number.
        """
        loss: Callable[..., Tensor] = self.loss
        if self.module is not None:
            if module is None:
                raise ValueError(f"{self.name} has a trainable module: bind the distiller first")
            loss = partial(loss, module)
        rest: list[Any] = [y] if "labels" in self.needs else []
        if "batch" in self.needs:
            if batch is None:
                raise ValueError(f"{self.name} needs the batch, but only got labels")
            rest.append(batch)
        if not self.features:
            return loss(self._take(student, "logits", "student"), *rest)
        kind = next(iter(self.features)) if len(self.features) == 1 else None
        sides: list[Any] = []
        if self.side != "teacher":
            sides.append(self._take(student, kind, "student"))
        if self.side != "student":
            sides.append(self._take(target, kind, "teacher"))
        if kind not in ("stages", "pre"):
            return loss(*sides, *rest)
        if len(sides) == 2 and len(sides[0]) != len(sides[1]) and not self.texts:
            raise ValueError(f"{self.name}: the student has {len(sides[0])} {kind}, the teacher {len(sides[1])}")
        if self.whole or self.module is not None:
            return loss(*sides, *rest)
        return torch.stack([loss(*each, *rest) for each in zip(*sides, strict=True)]).sum()

    def _take(self, output: Tensor | Output | None, kind: str | None, who: str) -> Any:
        if isinstance(output, Output):
            return output if kind is None else getattr(output, kind)
        if output is None or kind != "logits":
            had = "nothing" if output is None else "only logits"
            missing = kind or ", ".join(sorted(self.features))
            raise ValueError(f"{self.name} needs the {who}'s {missing}, but got {had}")
        return output


@dataclass(frozen=True)
class Phase:
    """One phase of a recipe: the terms for a share of the training.

    Layers on which its losses do not depend are not trained in it: they get no gradient, and with ``until``
    their running statistics are frozen too.

    Args:
        share: length relative to the other phases, above 0.
        until: index of the last student stage to train, or MIDDLE; None trains all.
    """

    terms: tuple[Term, ...]
    share: float = 1.0
    until: int | None = None

    @property
    def student(self) -> bool:
        """Whether the student is used."""
        return any(term.side != "teacher" for term in self.terms)


Sampler = Callable[..., Any]  # from a Split to an object with the interface of a Split; see nas_kd.distill.sampling


@dataclass(frozen=True, repr=False)
class Recipe:
    """Training phases in order, usually one, and their requirements on data and targets.

    Args:
        sampler: wraps the training split to draw other batches, such as pairs of a class.
        source: converts the user's targets (or None) into those of the method, such as the mean teacher; None
            keeps them.
        inputs: builds the module that creates the images of a batch, such as a generator; None uses the data.
        own_targets: whether ``source`` needs no teacher from the user.
        live: whether the teacher must run live: on uncached images, or for its input gradient.
        generations: number of times the student is retrained, each time with the previous one as teacher.
        start: changes the student once, before its first step, from the pair and the data.

    Raises:
        SettingError: there is no phase or no term, a share is not positive, or a phase has two terms of the same name.
    """

    phases: tuple[Phase, ...]
    sampler: Sampler | None = None
    source: Callable[[Pair], TargetSource] | None = None
    inputs: Callable[[Pair], nn.Module] | None = None
    own_targets: bool = False
    live: bool = False
    generations: int = 1
    start: Callable[[Pair, Data], None] | None = None
    needs: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        if not self.phases or not all(phase.terms for phase in self.phases):
            raise SettingError("recipe", self.phases, "at least one phase with at least one term")
        for phase in self.phases:
            names = [term.name for term in phase.terms]
            if phase.share <= 0:
                raise SettingError("recipe.share", phase.share, "a number above 0")
            if len(set(names)) < len(names):
                raise SettingError("recipe.terms", names, "different names", "add the weights of equal terms")
        needs = frozenset[str]().union(*(term.needs for term in self.terms))
        object.__setattr__(self, "needs", needs)

    def __repr__(self) -> str:
        parts = {"sampler": self.sampler, "source": self.source, "inputs": self.inputs, "start": self.start}
        more = [f"{name}={_describe(part)}" for name, part in parts.items() if part is not None]
        return f"Recipe({', '.join([repr(self.phases), *more])})"

    @property
    def terms(self) -> tuple[Term, ...]:
        """The terms of all phases."""
        return tuple(term for phase in self.phases for term in phase.terms)

    @property
    def needs_teacher(self) -> bool:
        """Whether the user must provide targets."""
        return any(term.needs_target for term in self.terms) and not self.own_targets

    @property
    def needs_features(self) -> bool:
        """Whether the student's features are needed, not only its logits."""
        return bool(self.needs - {"labels", "logits", "batch"})

    @property
    def needs_target_features(self) -> bool:
        """Whether the target's features are needed, not only its logits."""
        return any(term.needs_target and term.features - {"logits"} for term in self.terms)

    @property
    def runs_teacher(self) -> bool:
        """Whether the teacher must run live instead of being read from stored logits."""
        return self.needs_teacher and (self.needs_target_features or self.live)

    def unseen(self, mixed: bool = False, unlabelled: bool = False) -> str:
        """Describe the teacher's inputs that are not numbered views of training images; empty if there are none."""
        if mixed:
            return "mixed images"
        if unlabelled:
            return "images without labels"
        return "the images of this method" if self.live else ""

    @staticmethod
    def of(terms: Sequence[Term], **rest: Any) -> Recipe:
        """Return a recipe of one phase; terms whose weight is the number 0 are dropped."""
        kept = tuple(term for term in terms if callable(term.weight) or term.weight != 0)
        return Recipe((Phase(kept),), **rest)

    def at(self, progress: float) -> Phase:
        """Return the phase at a training progress in 0..1."""
        passed = 0.0
        total = sum(phase.share for phase in self.phases)
        for phase in self.phases:
            passed += phase.share / total
            if progress < passed:
                return phase
        return self.phases[-1]


def _describe(thing: Any) -> str:
    """A repr without addresses."""
    if isinstance(thing, partial):
        settings = [f"{name}={value!r}" for name, value in sorted(thing.keywords.items())]
        return f"{_describe(thing.func)}({', '.join([*map(_describe, thing.args), *settings])})"
    owner = getattr(thing, "__self__", None)
    if owner is not None:
        return f"{owner!r}.{thing.__name__}"
    return getattr(thing, "__qualname__", None) or repr(thing)
