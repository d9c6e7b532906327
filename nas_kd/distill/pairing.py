"""Forward passes with features and static shapes of a student and its targets, before training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from nas_kd.data import Batch
from nas_kd.distill.pair import Pair, Shape, Shapes
from nas_kd.distill.term import Recipe
from nas_kd.errors import SettingError
from nas_kd.nn import inputs
from nas_kd.nn.output import Output
from nas_kd.teacher.foreign import ModuleReader
from nas_kd.teacher.probe import probe
from nas_kd.teacher.taps import pool_to
from nas_kd.teacher.targets import TargetSource

if TYPE_CHECKING:
    from nas_kd.data.tokenised import Tokenised


def student_forward(model: nn.Module, image: Shape) -> Callable[[Tensor], Output]:
    """Return a network's forward pass with features, (B, C, H, W) to Output, for any network.

    Raises:
        SettingError: the network has no logits, or no layer with a feature map.
    """
    if hasattr(model, "forward_stages"):
        return cast("Callable[[Tensor], Output]", model.forward_stages)
    if not inputs.takes_images(model):
        expected = "a network whose layers are known, as those of transformers are, for a method on features"
        raise SettingError("model", type(model).__name__, expected, "use kd, which only needs logits")
    training = model.training
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    found = probe(model.eval(), torch.zeros(2, *image, device=device))
    model.train(training)
    layers = found.layers
    if not layers:
        expected = "a network with feature maps, for a method on features"
        raise SettingError("model", type(model).__name__, expected, "use kd, which only needs logits")
    ends = [i for i, layer in enumerate(layers) if i + 1 == len(layers) or layers[i + 1].size != layer.size]
    return ModuleReader(model, found, [layers[i].path for i in ends]).read


@torch.no_grad()
def shapes_of(forward: Callable[[Tensor], Output], model: nn.Module, image: Shape) -> Shapes:
    """Return a network's shapes on one image of zeros, in eval mode so that no statistics change.

    Raises:
        SettingError: the network cannot run on such images, or has no logits.
    """
    training = model.training
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    model.eval()
    try:
        x = inputs.example(model, image[0], image[1], 2)
        found = forward(x.to(like.dtype) if isinstance(x, Tensor) else x)
    except (AssertionError, RuntimeError, ValueError, IndexError) as error:
        expected = f"a network that takes images {' x '.join(map(str, image))} ({str(error).splitlines()[0]})"
        raise SettingError(
            "model", type(model).__name__, expected, "build it for the channels and the size of the data"
        ) from error
    finally:
        model.train(training)
    if not isinstance(found.logits, Tensor) or found.logits.ndim != 2:
        expected = "a network that returns (B, C) logits in evaluation mode"
        raise SettingError("model", type(model).__name__, expected, "wrap it in a module that does")
    return Shapes.of(found)


def pair_of(
    model: nn.Module,
    recipe: Recipe,
    source: TargetSource | None,
    image: Shape,
    classes: int,
    images: int = 1,
    seed: int = 0,
    labels: Tensor | None = None,
    tokens: Tokenised | None = None,
) -> Pair:
    """Determine the static shapes of a student and its targets, before training.

    Args:
        model: the student, on its device.
        recipe: determines which features are needed.
        source: the targets, or None; a teacher whose features are needed is tapped, one layer per stage.
        images: number of training images.
        labels: (N,) classes of the training images, if labels are classes.
        tokens: what the tokens of texts are.

    Raises:
        SettingError: a network has no features although they are needed.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    teachers = [member.teacher for member in source.members] if source is not None else []
    for teacher in teachers:
        if teacher is not None:
            teacher.to(device)
    theirs = Shapes(classes, (), (), classes)
    forward = student_forward(model, image) if recipe.needs_features else _logits_only(model)
    own = shapes_of(forward, model, image)
    if own.logits != classes:
        expected = f"a network with {classes} logits, one per class of the data; it has {own.logits}"
        raise SettingError("model", type(model).__name__, expected, "build it with num_classes=data.num_classes")
    if recipe.needs_target_features and source is not None and not recipe.own_targets:
        for teacher in teachers:
            if teacher is not None:
                teacher.match(Sizes([shape[-1] for shape in own.stages]), image[1])
        none = torch.zeros(2, dtype=torch.int64)
        x = inputs.moved(inputs.example(model, image[0], image[1], 2), device)
        theirs = Shapes.of(source.features(Batch(x, none.to(device), none, none - 1)))
        forward, own = _at_sizes_of(theirs, forward, own)
    if recipe.own_targets:
        theirs = own
    taught = None if source is None and not recipe.own_targets else theirs
    return Pair(own, taught, model, forward, source, image, images, seed, labels, tokens)


def _at_sizes_of(
    theirs: Shapes, forward: Callable[[Tensor], Output], own: Shapes
) -> tuple[Callable[[Tensor], Output], Shapes]:
    """Average a student's maps down to those of its targets where these are smaller, in its forward pass and shapes."""
    maps = [(s, t) for s, t in zip(own.stages, theirs.stages, strict=False) if len(s) == len(t) == 3]
    if len(maps) < len(own.stages) or len(own.stages) != len(theirs.stages) or all(t[-1] >= s[-1] for s, t in maps):
        return forward, own

    @wraps(forward)  # the hooks of a network are removed by its reader
    def averaged(x: Tensor) -> Output:
        out = forward(x)
        stages, pre = ([pool_to(f, t[-1]) for f, (_, t) in zip(fs, maps, strict=True)] for fs in (out.stages, out.pre))
        return out._replace(stages=stages, pre=pre)

    smaller = tuple((s[0], min(s[1], t[1]), min(s[2], t[2])) for s, t in maps)
    before = tuple((p[0], *s[1:]) for p, s in zip(own.pre, smaller, strict=True))
    return averaged, replace(own, stages=smaller, pre=before)


class Sizes:
    """Replaces a space if only the sizes of a student's stages are needed."""

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
