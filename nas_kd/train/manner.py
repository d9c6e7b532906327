"""In what manner a network is trained besides how long and how fast: optimiser, schedule, averaging and mixing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn

from nas_kd.config import checks
from nas_kd.data import Batch
from nas_kd.distill import Recipe
from nas_kd.errors import SettingError
from nas_kd.train.optim import Schedule, optimizer_of


@dataclass(frozen=True)
class Manner:
    """The manner of a training; the defaults are SGD with a cosine, no averaging and unmixed images.

    Args:
        optimizer: ``sgd`` (Nesterov momentum), or the name of one of timm's, such as ``adamw`` or ``lamb``.
        schedule: ``cosine`` to zero or ``step``.
        milestones: epochs after which the step schedule multiplies the rate; None is 5/8, 3/4 and 7/8 of all.
        factor: what it multiplies the rate by, above 0 and below 1.
        ema: decay of an average of the weights that takes their place in the end, 0 for none.
        mixup: parameter of the beta distribution of mixup's shares, 0 for none.
        cutmix: likewise of CutMix's; with both, each batch is mixed by one of them.
    """

    optimizer: str = "sgd"
    schedule: str = "cosine"
    milestones: Sequence[float] | None = None
    factor: float = 0.1
    ema: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        if self.milestones is not None:
            object.__setattr__(self, "milestones", tuple(self.milestones))

    @classmethod
    def of(cls, settings: object) -> Manner:
        """Take the manner out of the settings of a section, such as ``RetrainConfig``."""
        return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})

    @property
    def chosen(self) -> dict[str, Any]:
        """What differs from the defaults: all that a run's record names, so that earlier runs go on."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}

    @property
    def mixes(self) -> bool:
        """Whether images are mixed, which no stored answer of a teacher knows."""
        return self.mixup > 0 or self.cutmix > 0

    def check(self, section: str, recipe: Recipe, *, epochs: int, batch_size: int, unlabelled: bool = False) -> None:
        """Refuse what cannot be trained, before the first epoch.

        Args:
            section: section of the settings, for the message.
            recipe: the method.
            epochs: epochs of the training.
            batch_size: images a step of one process.
            unlabelled: whether images without labels join every batch.

        Raises:
            SettingError: a setting is out of range, timm lacks the optimiser or this machine what it needs, or
                the method needs every image's one label or draws batches of its own, which mixing does not give.
        """
        checks.manner(section, self, epochs)
        _check_optimizer(f"{section}.optimizer", self.optimizer)
        if not self.mixes:
            return
        name = f"{section}.{'mixup' if self.mixup > 0 else 'cutmix'}"
        value = self.mixup or self.cutmix
        known = sorted({t.name for t in recipe.terms if t.needs & {"labels", "batch"} and t.name != "ce"})
        if known or recipe.sampler is not None or recipe.inputs is not None:
            cause = f"one label an image ({', '.join(known)})" if known else "batches of its own"
            raise SettingError(name, value, f"0 with a method that needs {cause}", "use kd, kd_ls, dist, sp, ...")
        if unlabelled:
            raise SettingError(name, value, "0 with images without labels", "leave unlabelled out")
        if batch_size % 2:
            raise SettingError(f"{section}.batch_size", batch_size, "even with mixup or cutmix", "add one image")

    def rates(self, lr: float, warmup_epochs: float) -> Schedule:
        """Return the learning rate of every step."""
        milestones = None if self.milestones is None else tuple(self.milestones)
        return Schedule(lr, warmup_epochs, self.schedule, milestones=milestones, factor=self.factor)

    def mixing(self, classes: int) -> Callable[[Batch], Batch]:
        """Return what mixes a batch.

        Args:
            classes: number of classes.

        Returns:
            Takes a batch of new images, which it may write to, and returns one with labels (B, classes) that add
            up to 1 and views -1; its draws are numpy's, which the loop seeds for every step.
        """
        if not self.mixes:
            return _unmixed
        from timm.data import Mixup  # type: ignore[attr-defined]

        mix = Mixup(self.mixup, self.cutmix, label_smoothing=0.0, num_classes=classes)

        def mixed(batch: Batch) -> Batch:
            x, y = mix(batch.x, batch.y)
            return Batch(x, y, batch.index, torch.full_like(batch.view, -1))

        return mixed


def _unmixed(batch: Batch) -> Batch:
    return batch


def _check_optimizer(field: str, name: str) -> None:
    """Take one step, because some need a GPU, another library or second derivatives, and say so only then."""
    model = nn.Linear(2, 2)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    try:
        with torch.random.fork_rng(devices=[]):
            optimizer_of(name, [model], lr=0.1, momentum=0.9, weight_decay=0.0).step()
    except SettingError as error:
        raise SettingError(field, name, error.expected, error.hint) from error
    except (AssertionError, ImportError, RuntimeError, TypeError) as error:
        said = " ".join(str(error).split())
        raise SettingError(field, name, f"an optimiser that runs here ({said})", f"use {field}=adamw") from error
