"""Mixup and CutMix, and the methods that do not support them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from nas_kd.data import Batch
from nas_kd.distill import Recipe
from nas_kd.errors import SettingError
from nas_kd.train.config import TrainingConfig


def check_mixing(
    config: TrainingConfig, recipe: Recipe, world: int = 1, unlabelled: bool = False, kind: str = "classes"
) -> None:
    """Check that a method supports mixed images, before the first epoch.

    Args:
        world: number of processes.
        unlabelled: whether images without labels are added to every batch.
        kind: what labels are; only classes are mixed.

    Raises:
        SettingError: the method needs one label per image or draws its own batches, or the batch of a process is odd.
    """
    if not config.mixes:
        return
    name = f"{config.section}.{'mixup' if config.mixup > 0 else 'cutmix'}"
    value = config.mixup or config.cutmix
    if kind != "classes":
        raise SettingError(name, value, f"0 with {kind} labels", "omit it")
    known = sorted({t.name for t in recipe.terms if t.needs & {"labels", "batch"} and t.name != "ce"})
    if known or recipe.sampler is not None or recipe.inputs is not None:
        cause = f"one label per image ({', '.join(known)})" if known else "its own batches"
        raise SettingError(name, value, f"0 with a method that needs {cause}", "use kd, logit_mse, dist, sp, ...")
    if unlabelled:
        raise SettingError(name, value, "0 with images without labels", "omit unlabelled")
    if (config.batch_size // world) % 2:
        expected = "even with mixup or cutmix"
        raise SettingError(f"{config.section}.batch_size", config.batch_size, expected, "add one image")


def mixing(config: TrainingConfig, classes: int) -> Callable[[Batch], Batch]:
    """Return a function that mixes a batch.

    Returns:
        A function from a batch, which it may modify, to one with labels (B, classes) that sum to 1 and views -1; it
        draws from numpy's global generator, which the loop seeds for every step.
    """
    if not config.mixes:
        return _unmixed
    from timm.data import Mixup  # type: ignore[attr-defined]

    mix = Mixup(config.mixup, config.cutmix, label_smoothing=0.0, num_classes=classes)

    def mixed(batch: Batch) -> Batch:
        x, y = mix(batch.x, batch.y)
        return Batch(x, y, batch.index, torch.full_like(batch.view, -1))

    return mixed


def _unmixed(batch: Batch) -> Batch:
    return batch
