"""Optimisers, and the learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from nas_kd.errors import SettingError, nearest
from nas_kd.train.config import TrainingConfig


def decay_groups(modules: Iterable[nn.Module], weight_decay: float) -> list[dict[str, object]]:
    """Split parameters so that norms and biases are not decayed.

    Args:
        modules: networks to train.
        weight_decay: decay of the weights.

    Returns:
        Two parameter groups: those of two or more dimensions, and the rest without decay.
    """
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def sgd(modules: Iterable[nn.Module], *, momentum: float = 0.9, weight_decay: float = 5e-4) -> torch.optim.SGD:
    """Return SGD with Nesterov momentum; the loop sets the learning rate before every step."""
    nesterov = momentum > 0.0
    return torch.optim.SGD(decay_groups(modules, weight_decay), lr=0.0, momentum=momentum, nesterov=nesterov)


def adamw(modules: Iterable[nn.Module], *, weight_decay: float = 1e-4) -> torch.optim.AdamW:
    """Return AdamW; the loop sets the learning rate before every step."""
    return torch.optim.AdamW(decay_groups(modules, weight_decay), lr=0.0)


def optimizer_of(
    name: str, modules: Iterable[nn.Module], *, lr: float, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Return an optimiser by name; norms and biases have no weight decay.

    Args:
        name: ``sgd``, or one of timm's.
        lr: peak learning rate; the loop sets that of each step.
        momentum: for optimisers that have one.

    Raises:
        SettingError: timm has no such optimiser, or part of it would not follow the schedule.
    """
    if name == "sgd":
        return sgd(modules, momentum=momentum, weight_decay=weight_decay)
    from timm.optim import create_optimizer_v2, list_optimizers  # type: ignore[attr-defined]

    known = [*map(str, list_optimizers())]
    if name not in known:
        raise SettingError("optimizer", name, "sgd, or an optimiser of timm.optim", nearest(name, known))
    groups = decay_groups(modules, weight_decay)
    made: torch.optim.Optimizer = create_optimizer_v2(groups, opt=name, lr=lr, momentum=momentum)
    if any("adamw_lr" in group for group in made.param_groups):  # set once there, and no schedule reaches it
        expected = "an optimiser that follows the schedule; this one of an older timm does so for matrices alone"
        raise SettingError("optimizer", name, expected, "pip install -U timm")
    return made


def check_optimizer(field: str, name: str) -> None:
    """Check an optimiser with one step: some need a GPU, another library or second derivatives, and fail only then.

    Args:
        field: the setting, for the error message.

    Raises:
        SettingError: the optimiser does not exist, or cannot run here.
    """
    model = nn.Linear(2, 2)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    try:
        with torch.random.fork_rng(devices=[]):
            optimizer_of(name, [model], lr=0.1, momentum=0.9, weight_decay=0.0).step()
    except SettingError as error:
        raise SettingError(field, name, error.expected, error.hint) from error
    except (AssertionError, ImportError, RuntimeError, TypeError) as error:
        message = " ".join(str(error).split())
        raise SettingError(field, name, f"an optimiser that runs here ({message})", f"use {field}=adamw") from error


STEPS = (5 / 8, 3 / 4, 7 / 8)  # of the epochs: 150, 180 and 210 of the 240 that distillation papers train for


@dataclass(frozen=True)
class Schedule:
    """Learning rate: linear warm-up, then cosine, steps, or exponential with constant ending.

    Args:
        lr: peak learning rate.
        warmup_epochs: epochs (or a fraction) of linear warm-up from 0; at most half of a training.
        kind: ``cosine``, ``step`` or ``exponential``.
        final: final learning rate as a fraction of the peak, 0 to 1; above 0 for the exponential.
        milestones: epochs after which the step schedule multiplies by ``factor``, like torch's MultiStepLR;
            None is 5/8, 3/4 and 7/8 of the training.
        factor: above 0 and below 1.

    Source: constant ending: BigNAS (Yu et al. 2020), section 3.3.
    """

    lr: float
    warmup_epochs: float = 0.0
    kind: str = "cosine"
    final: float = 0.0
    milestones: tuple[float, ...] | None = None
    factor: float = 0.1

    def __post_init__(self) -> None:
        if not self.lr > 0.0:
            raise SettingError("lr", self.lr, "a number above 0")
        if self.warmup_epochs < 0.0:
            raise SettingError("warmup_epochs", self.warmup_epochs, "0 or more")
        if self.kind not in ("cosine", "step", "exponential"):
            raise SettingError("schedule", self.kind, "cosine, step or exponential")
        if not (0.0 <= self.final < 1.0) or (self.kind == "exponential" and self.final == 0.0):
            raise SettingError("final_lr", self.final, "0 to 1, and above 0 for the exponential schedule")

    def at(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        """Return the learning rate of a step.

        Args:
            step: index of the step in the whole training.
            epochs: epochs of the whole training.

        Returns:
            The learning rate. The cosine reaches ``final`` at the end; the exponential would reach a tenth of
            ``final``, and is clipped at ``final`` for the last part.
        """
        warmup = min(self.warmup_epochs, epochs / 2) * steps_per_epoch
        if step < warmup:
            return self.lr * (step + 1) / (warmup + 1)
        if self.kind == "step":
            milestones = [part * epochs for part in STEPS] if self.milestones is None else self.milestones
            return self.lr * self.factor ** sum(step >= epoch * steps_per_epoch for epoch in milestones)
        share = (step - warmup) / max(1.0, epochs * steps_per_epoch - warmup)  # 0 to 1
        if self.kind == "cosine":
            return self.lr * (self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * share)))
        return self.lr * max(self.final, (self.final / 10.0) ** share)


class Rates(Protocol):
    """A learning rate as a function of the step, such as ``Schedule``."""

    def at(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        """Return the learning rate of a step; arguments as in ``Schedule.at``."""


@dataclass(frozen=True)
class Phased:
    """One schedule after another.

    Args:
        parts: epochs and schedule of each phase.
    """

    parts: tuple[tuple[int, Schedule], ...]

    def at(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        """Return the learning rate of a step; arguments as in ``Schedule.at``, ``epochs`` of all phases."""
        number = 0
        while step >= self.parts[number][0] * steps_per_epoch:
            step -= self.parts[number][0] * steps_per_epoch
            number += 1
        count, plan = self.parts[number]
        return plan.at(step, steps_per_epoch, count)


def schedule_of(config: TrainingConfig) -> Schedule:
    """Return the learning rate of every step of a training."""
    milestones = None if config.milestones is None else tuple(config.milestones)
    return Schedule(config.lr, config.warmup_epochs, config.schedule, milestones=milestones, factor=config.factor)
