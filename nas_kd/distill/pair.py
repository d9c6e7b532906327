"""The inputs of a method before training: the static shapes of student and teacher, and both networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import unwrap
from typing import TYPE_CHECKING

from torch import Tensor, nn

from nas_kd.errors import SettingError
from nas_kd.nn.output import Output
from nas_kd.teacher.foreign import ModuleReader
from nas_kd.teacher.targets import TargetSource

if TYPE_CHECKING:
    from nas_kd.data.tokenised import Tokenised

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Shapes:
    """The shapes of an :class:`Output` without the batch.

    Args:
        stages: (C, H, W) or (N, C) of every stage.
        pre: the same before the last activation.
        pooled: width of the classifier's input.
    """

    logits: int
    stages: tuple[Shape, ...]
    pre: tuple[Shape, ...]
    pooled: int

    @staticmethod
    def of(output: Output) -> Shapes:
        """Read the shapes from a forward pass."""
        stages, pre = (tuple(tuple(x.shape[1:]) for x in xs) for xs in (output.stages, output.pre))
        return Shapes(output.logits.shape[1], stages, pre, output.pooled.shape[1])

    def named(self, kind: str) -> tuple[Shape, ...]:
        """Return the shapes of "stages", "pre", "pooled" or "logits", one or several."""
        found = getattr(self, kind)
        return found if isinstance(found, tuple) else ((found,),)


@dataclass(frozen=True, eq=False)
class Pair:
    """A student and the source of its targets.

    Args:
        student: shapes of the student's output.
        teacher: shapes of the targets; None if only labels are needed.
        forward: the student's forward pass with features, (B, C, H, W) to Output.
        source: where targets come from, or None.
        image: (C, H, W) of the input.
        images: number of training images.
        seed: seed of all random draws of a method before training.
        classes: (N,) classes of the training images, -1 where unknown; None where labels are no classes.
        tokens: what the tokens of texts are; None of images.
    """

    student: Shapes
    teacher: Shapes | None
    model: nn.Module
    forward: Callable[[Tensor], Output]
    source: TargetSource | None = None
    image: Shape = (3, 32, 32)
    images: int = 1
    seed: int = 0
    classes: Tensor | None = None
    tokens: Tokenised | None = None

    def release(self) -> None:
        """Remove the hooks from a student that does not return its features itself."""
        reader = getattr(unwrap(self.forward), "__self__", None)
        if isinstance(reader, ModuleReader):
            reader.remove()

    def shapes(self, name: str, kind: str) -> list[tuple[Shape, Shape]]:
        """Return the shapes of student and teacher, stage by stage.

        Args:
            kind: "stages", "pre", "pooled" or "logits".

        Raises:
            SettingError: there is no teacher, or the stages differ in number.
        """
        if self.teacher is None:
            expected = "a method on labels only, or a live teacher"
            raise SettingError("method", name, expected, "pass teacher=, or use method='ce'")
        s = self.student.named(kind)
        t = self.teacher.named(kind)
        if len(s) != len(t):
            expected = f"{len(s)} teacher stages, as many as the student has; the teacher has {len(t)}"
            raise SettingError("method", name, expected, "name one layer per stage in load_teacher(stages=[...])")
        if not s:
            expected = f"a method on logits: this student has no {kind}"
            raise SettingError("method", name, expected, "use kd, which only needs logits")
        return list(zip(s, t, strict=True))


def equal_places(name: str, kind: str = "stages") -> Callable[[Pair], None]:
    """Return a check that maps have equal height and width in every stage."""

    def check(pair: Pair) -> None:
        for number, (s, t) in enumerate(pair.shapes(name, kind), 1):
            if len(s) != len(t) or places(s) != places(t):
                expected = f"maps of equal height and width; stage {number}: student {s}, teacher {t}"
                raise SettingError("method", name, expected, "choose other layers with load_teacher(stages=[...])")

    return check


def equal_channels(name: str, kind: str = "stages") -> Callable[[Pair], None]:
    """Return a check that all stages have maps of equal shapes."""

    def check(pair: Pair) -> None:
        for number, (s, t) in enumerate(pair.shapes(name, kind), 1):
            if s != t or len(s) != 3:
                expected = f"maps of equal channels, height and width; stage {number}: student {s}, teacher {t}"
                raise SettingError("method", name, expected, "use a method with adapters, such as fitnet or vid")

    return check


def two_stages(name: str) -> Callable[[Pair], None]:
    """Return a check that there are at least two stages."""

    def check(pair: Pair) -> None:
        if len(pair.shapes(name, "stages")) < 2:
            expected = f"two stages or more; the student has {pair.student.stages}"
            raise SettingError("method", name, expected, "use rkd, which only needs the pooled feature")

    return check


def places(shape: Shape) -> Shape:
    """Return (H, W) of (C, H, W), (N,) of (N, C)."""
    return shape[1:] if len(shape) == 3 else shape[:1]


def channels(shape: Shape) -> int:
    """Return C of (C, H, W), (N, C) or (D,)."""
    return shape[0] if len(shape) == 3 else shape[-1]
