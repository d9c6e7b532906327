"""Mixup and CutMix, and the methods that cannot see mixed images."""

from __future__ import annotations

from collections.abc import Callable

import torch

from nas_kd.data import Batch
from nas_kd.distill import Recipe
from nas_kd.errors import SettingError
from nas_kd.train.config import TrainingConfig


def check_mixing(config: TrainingConfig, recipe: Recipe, world: int = 1, unlabelled: bool = False) -> None:
    """Refuse mixing that a method cannot see, before the first epoch.

    Args:
        recipe: the method.
        world: number of processes.
        unlabelled: whether images without labels join every batch.

    Raises:
        SettingError: the method needs every image's one label or draws batches of its own, which mixing does not give,
            or a process's batch is no pairs.
    """
    if not config.mixes:
        return
    name = f"{config.section}.{'mixup' if config.mixup > 0 else 'cutmix'}"
    value = config.mixup or config.cutmix
    known = sorted({t.name for t in recipe.terms if t.needs & {"labels", "batch"} and t.name != "ce"})
    if known or recipe.sampler is not None or recipe.inputs is not None:
        cause = f"one label an image ({', '.join(known)})" if known else "batches of its own"
        raise SettingError(name, value, f"0 with a method that needs {cause}", "use kd, kd_ls, dist, sp, ...")
    if unlabelled:
        raise SettingError(name, value, "0 with images without labels", "leave unlabelled out")
    if (config.batch_size // world) % 2:
        expected = "even with mixup or cutmix"
        raise SettingError(f"{config.section}.batch_size", config.batch_size, expected, "add one image")


def mixing(config: TrainingConfig, classes: int) -> Callable[[Batch], Batch]:
    """Return what mixes a batch.

    Args:
        classes: number of classes.

    Returns:
        Takes a batch of new images, which it may write to, and returns one with labels (B, classes) that add
        up to 1 and views -1; its draws are numpy's, which the loop seeds for every step.
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
