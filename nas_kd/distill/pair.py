"""What a method is told before training: the static shapes of student and teacher, and the two networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from nas_kd.data import Batch
from nas_kd.errors import SettingError
from nas_kd.nn.output import Output
from nas_kd.teacher.foreign import ModuleReader
from nas_kd.teacher.probe import probe

if TYPE_CHECKING:
    from nas_kd.distill.source import TargetSource
    from nas_kd.distill.term import Recipe

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Shapes:
    """The shapes of an :class:`Output` without the batch.

    Args:
        logits: number of classes.
        stages: (C, H, W) or (N, C) of every stage.
        pre: likewise before the last activation.
        pooled: width of the classifier's input.
    """

    logits: int
    stages: tuple[Shape, ...]
    pre: tuple[Shape, ...]
    pooled: int

    @staticmethod
    def of(output: Output) -> Shapes:
        """Read the shapes off a forward pass."""
        stages, pre = (tuple(tuple(x.shape[1:]) for x in xs) for xs in (output.stages, output.pre))
        return Shapes(output.logits.shape[1], stages, pre, output.pooled.shape[1])

    def named(self, kind: str) -> tuple[Shape, ...]:
        """Return the shapes of "stages", "pre", "pooled" or "logits", one or several."""
        found = getattr(self, kind)
        return found if isinstance(found, tuple) else ((found,),)


@dataclass(frozen=True, eq=False)
class Pair:
    """A student and what teaches it.

    Args:
        student: shapes of the student's output.
        teacher: shapes of the targets; None where nobody but the labels and the student itself teaches.
        model: the student.
        forward: the student's forward pass with features, (B, C, H, W) to Output.
        network: the teacher as a network that is run, or None.
        source: where targets come from, or None.
        image: (C, H, W) of the input.
        images: number of training images.
        seed: seed of everything a method draws before training.
    """

    student: Shapes
    teacher: Shapes | None
    model: nn.Module
    forward: Callable[[Tensor], Output]
    network: Any = None
    source: TargetSource | None = None
    image: Shape = (3, 32, 32)
    images: int = 1
    seed: int = 0

    def release(self) -> None:
        """Take readers of features off a student that does not return them itself."""
        reader = getattr(self.forward, "__self__", None)
        if isinstance(reader, ModuleReader):
            reader.remove()

    def taught(self, name: str, kind: str) -> list[tuple[Shape, Shape]]:
        """Pair the shapes of student and teacher.

        Args:
            name: the method, for the message.
            kind: "stages", "pre", "pooled" or "logits".

        Returns:
            (student, teacher) of every stage, or the single one.

        Raises:
            SettingError: there is no teacher, or the stages differ in number.
        """
        if self.teacher is None:
            legal = "a method on labels alone, or a live teacher"
            raise SettingError("method", name, legal, "pass teacher=, or use method='ce'")
        s, t = self.student.named(kind), self.teacher.named(kind)
        if len(s) != len(t):
            legal = f"as many teacher stages as the student's {len(s)}; the teacher gives {len(t)}"
            raise SettingError("method", name, legal, "name one layer a stage in load_teacher(stages=[...])")
        if not s:
            legal = f"a method on logits: this student gives no {kind}"
            raise SettingError("method", name, legal, "use kd_ls, which needs logits only")
        return list(zip(s, t, strict=True))


def equal_places(name: str, kind: str = "stages") -> Callable[[Pair], None]:
    """Return a check that maps have equal height and width in every stage; names the shapes that differ."""

    def check(pair: Pair) -> None:
        for number, (s, t) in enumerate(pair.taught(name, kind), 1):
            if len(s) != len(t) or places(s) != places(t):
                legal = f"maps of equal height and width; stage {number}: student {s}, teacher {t}"
                raise SettingError("method", name, legal, "choose other layers with load_teacher(stages=[...])")

    return check


def equal_channels(name: str, kind: str = "stages") -> Callable[[Pair], None]:
    """Return a check that there are maps of equal shapes in every stage; names the shapes that differ."""

    def check(pair: Pair) -> None:
        for number, (s, t) in enumerate(pair.taught(name, kind), 1):
            if s != t or len(s) != 3:
                legal = f"maps of equal channels, height and width; stage {number}: student {s}, teacher {t}"
                raise SettingError("method", name, legal, "use a method with adapters, such as fitnet or vid")

    return check


def two_stages(name: str) -> Callable[[Pair], None]:
    """Return a check that there are at least two stages."""

    def check(pair: Pair) -> None:
        if len(pair.taught(name, "stages")) < 2:
            legal = f"two stages or more; the student has {pair.student.stages}"
            raise SettingError("method", name, legal, "use rkd, which needs the pooled feature only")

    return check


def places(shape: Shape) -> Shape:
    """Return (H, W) of (C, H, W), (N,) of (N, C)."""
    return shape[1:] if len(shape) == 3 else shape[:1]


def channels(shape: Shape) -> int:
    """Return C of (C, H, W), (N, C) or (D,)."""
    return shape[0] if len(shape) == 3 else shape[-1]


def student_forward(model: nn.Module, image: Shape) -> Callable[[Tensor], Output]:
    """Return a network's forward pass with features, whatever network it is.

    Args:
        model: has ``forward_stages``, or is read at the last layer of each of its resolutions.
        image: (C, H, W) of the input.

    Returns:
        (B, C, H, W) to Output.

    Raises:
        SettingError: the network gives no logits, or no layer that gives a feature map.
    """
    if hasattr(model, "forward_stages"):
        return cast("Callable[[Tensor], Output]", model.forward_stages)
    training = model.training
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    found = probe(model.eval(), torch.zeros(2, *image, device=device))
    model.train(training)
    layers = found.layers
    if not layers:
        legal = "a network whose layers give feature maps, for a method on features"
        raise SettingError("model", type(model).__name__, legal, "use kd_ls, which needs logits only")
    ends = [i for i, layer in enumerate(layers) if i + 1 == len(layers) or layers[i + 1].size != layer.size]
    return ModuleReader(model, found, [layers[i].path for i in ends]).read


@torch.no_grad()
def shapes_of(forward: Callable[[Tensor], Output], model: nn.Module, image: Shape) -> Shapes:
    """Read a network's shapes off one image of zeros, in eval mode so that no statistic moves.

    Args:
        forward: its forward pass with features.
        model: the network; its mode is restored.
        image: (C, H, W) of the input.

    Returns:
        The shapes.

    Raises:
        SettingError: the network does not take such images, or gives no logits.
    """
    training = model.training
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    model.eval()
    try:
        found = forward(like.new_zeros(2, *image))
    except (AssertionError, RuntimeError, ValueError, IndexError) as error:
        legal = f"a network that takes images {' x '.join(map(str, image))} ({str(error).splitlines()[0]})"
        raise SettingError("model", type(model).__name__, legal, "build it for the data's channels and size") from error
    finally:
        model.train(training)
    if not isinstance(found.logits, Tensor) or found.logits.ndim != 2:
        legal = "a network that gives (B, C) logits in evaluation mode"
        raise SettingError("model", type(model).__name__, legal, "wrap it in a module that does")
    return Shapes.of(found)


def pair_of(
    model: nn.Module, recipe: Recipe, source: TargetSource | None, image: Shape, classes: int, images: int = 1,
    seed: int = 0,
) -> Pair:  # fmt: skip
    """Measure the static shapes of a student and of what teaches it, before training.

    Args:
        model: the student, on its device.
        recipe: tells which features are needed.
        source: the targets, or None; a teacher whose features are needed is tapped, one layer a stage.
        image: (C, H, W) of the input.
        classes: number of classes.
        images: number of training images.
        seed: seed of what the method draws.

    Returns:
        The pair.

    Raises:
        SettingError: a network gives no features where they are needed.
    """
    network: Any = getattr(source, "teacher", None)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    if hasattr(network, "to"):
        network.to(device)
    theirs = Shapes(classes, (), (), classes)
    forward = student_forward(model, image) if recipe.needs_features else _logits_only(model)
    own = shapes_of(forward, model, image)
    if own.logits != classes:
        legal = f"a network of {classes} logits, the classes of the data; it gives {own.logits}"
        raise SettingError("model", type(model).__name__, legal, "build it with num_classes=data.num_classes")
    if recipe.needs_target_features and source is not None and not recipe.own_targets:
        if hasattr(network, "match"):
            network.match(_Sizes([shape[-1] for shape in own.stages]), image[1])
        none = torch.zeros(2, dtype=torch.int64)
        found = source(Batch(torch.zeros(2, *image, device=device), none.to(device), none, none - 1))
        if not isinstance(found, Output):
            legal = "a live teacher for a method on features"
            raise SettingError("teacher", type(source).__name__, legal, "pass the teacher itself, not its cache")
        theirs = Shapes.of(found)
    if recipe.own_targets:
        theirs = own
    taught = None if source is None and not recipe.own_targets else theirs
    return Pair(own, taught, model, forward, network, source, image, images, seed)


class _Sizes:
    """Stands for a space where only the sizes of a student's stages are asked for."""

    def __init__(self, sizes: list[int]) -> None:
        self._sizes = sizes

    def stage_sizes(self, resolution: int) -> list[int]:
        """Return the output height of each stage in pixels."""
        return self._sizes


def _logits_only(model: nn.Module) -> Callable[[Tensor], Output]:
    def forward(x: Tensor) -> Output:
        logits = model(x)
        return Output(logits, [], [], logits)

    return forward
