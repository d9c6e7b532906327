"""The check of an export: the same images through the network and through what was read back."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from nas_kd.errors import SettingError
from nas_kd.export.deployed import Deployed
from nas_kd.export.formats.base import Read
from nas_kd.nn.unmeasured import unmeasured
from nas_kd.runtime.seeds import seed_for

BATCHES = (1, 5, 8)  # sizes of the batches that are compared, one after the other


class Agreement(NamedTuple):
    """How what was read back answers beside the network.

    Args:
        difference: largest absolute difference of outputs.
        share: share of equal answers, 0 to 1: the largest output, or which sigmoids are above a half; None for numbers.
        scale: largest absolute output of the network.
        images: number of images.
    """

    difference: float
    share: float | None
    scale: float
    images: int


def drawn_images(network: Deployed, count: int = sum(BATCHES)) -> Tensor:
    """Draw images (N, C, H, W) as a network takes them: in 0..1, normalised unless it does that itself."""
    rng = torch.Generator().manual_seed(seed_for("images of an export"))
    x = torch.rand(count, *network.image_shape(), generator=rng)
    mean, std = network.info.get("mean"), network.info.get("std")
    if network.normalise or not mean or not std:
        return x
    return (x - torch.tensor(mean).view(1, -1, 1, 1)) / torch.tensor(std).view(1, -1, 1, 1)


def batches(images: Tensor) -> list[Tensor]:
    """Part images into batches of 1, 5 and 8, then of what is left in eights."""
    sizes = [*BATCHES, *[BATCHES[-1]] * (len(images) // BATCHES[-1] + 1)]
    found = []
    for size in sizes:
        if len(images):
            found.append(images[:size])
            images = images[size:]
    return found


@torch.no_grad()
def compare(network: Deployed, read: Read, images: Tensor) -> Agreement:
    """Run images through both, in batches of several sizes."""
    parts = batches(images)
    wanted = torch.cat([network(part) for part in parts]).float()
    found = torch.cat([read(part) for part in parts]).float()
    if wanted.shape != found.shape:
        expected = f"outputs of the shape {tuple(wanted.shape)} from what was written"
        raise SettingError("to", tuple(found.shape), expected, "try another format")
    difference = float((wanted - found).abs().max())
    share = None
    if (same := network.same_answers(wanted, found)) is not None:
        share = float(same.double().mean())
    return Agreement(difference, share, float(wanted.abs().max()), len(images))


def check_evaluates(network: Deployed, images: Tensor) -> None:
    """Refuse images that a network cannot take, and a network that cannot be evaluated yet.

    Raises:
        SettingError: naming which.
    """
    if unmeasured(network):
        expected = "a student whose batch norms were measured or trained"
        raise SettingError("student", type(network.student).__name__, expected, "calibrate or train it first")
    if images.ndim != 4 or not images.is_floating_point() or not len(images):
        found = f"{tuple(images.shape)} {images.dtype}"
        raise SettingError("images", found, "float images (N, C, H, W), as the network takes them", "omit them")
    try:
        with torch.no_grad():
            found = network(images[:1])
    except RuntimeError as error:
        expected = f"images that the student takes ({' '.join(str(error).split())[:150]})"
        raise SettingError("images", tuple(images.shape), expected, "omit them") from error
    if not isinstance(found, Tensor) or found.ndim != 2:
        expected = "a network that returns logits (B, classes)"
        raise SettingError("student", type(network.student).__name__, expected, "wrap it in a module that does")


def at_fault(
    network: Deployed, example: Tensor, trace: Callable[[torch.nn.Module, tuple[object, ...]], object]
) -> tuple[str, str]:
    """Find the innermost module that cannot be traced by itself, on what it is given in the network.

    Args:
        example: images of the network.
        trace: traces a module on its arguments, or raises.

    Returns:
        Its path in the student and its class; of the student itself where every part can be traced.
    """
    given: dict[torch.nn.Module, tuple[object, ...]] = {}

    def keep(module: torch.nn.Module, args: tuple[object, ...]) -> None:
        given.setdefault(module, args)

    hooks = [module.register_forward_pre_hook(keep) for module in network.modules()]
    try:
        with torch.no_grad():
            network(example)
    finally:
        for hook in hooks:
            hook.remove()
    path, module = "", network.student
    while True:
        for name, child in module.named_children():
            inner = [(name, child)]
            if child not in given:  # a list of modules is not called itself
                inner = [(f"{name}.{own}", part) for own, part in child.named_children()]
            failing = [(own, part) for own, part in inner if part in given and not _traces(part, given[part], trace)]
            if failing:
                path, module = f"{path}.{failing[0][0]}".lstrip("."), failing[0][1]
                break
        else:
            return path or "the student", type(module).__name__


def _traces(
    module: torch.nn.Module,
    args: tuple[object, ...],
    trace: Callable[[torch.nn.Module, tuple[object, ...]], object],
) -> bool:
    try:
        trace(module, args)
    except Exception:  # whatever a tracer raises
        return False
    return True
