"""Training rules and losses from settings."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nas_kd.distill import Task
from nas_kd.errors import SettingError
from nas_kd.losses import (
    adaptive_alpha_divergence,
    alpha_divergence,
    js_divergence,
    kl_divergence,
    per_label,
    reverse_kl,
)
from nas_kd.space import Arch, ElasticSpace
from nas_kd.supernet import Supernet
from nas_kd.train.attentive import Attentive, Chooser, MacsTable
from nas_kd.train.cream import Board, Cream
from nas_kd.train.matching import MetaMatcher
from nas_kd.train.rules import Rule, Sandwich
from nas_kd.train.sandwich import Divergence
from nas_kd.train.shrinking import Shrinking, phases
from nas_kd.train.single_path import Fair, Uniform, most_choices
from nas_kd.train.supernet_config import SupernetConfig

CLIP = 5.0  # of the power of the density ratio in alpha-divergences, whose true gradient is unbounded


def divergence_of(config: SupernetConfig, task: Task | None = None) -> Divergence:
    """Return the loss of subnets that learn from soft targets; density ratios of alpha-divergences are clipped at 5.

    Args:
        task: with several labels an image, the divergence is that of each label; with numbers for labels it is the
            squared error. None is classification with one label an image.

    Raises:
        SettingError: a divergence of probabilities is named where labels are numbers.
    """
    if task is not None and task.kind == "regression":
        if config.divergence is not None:
            expected = "null where labels are real numbers: subnets then learn by the squared error"
            raise SettingError("supernet.divergence", config.divergence, expected, "leave it out")
        return task.divergence
    loss = _of_classes(config)
    return partial(per_label, loss) if task is not None and task.kind == "multilabel" else loss


def _of_classes(config: SupernetConfig) -> Divergence:
    plain = {"kl": kl_divergence, "reverse_kl": reverse_kl, "js": js_divergence}
    if config.soft_loss in plain:
        return plain[config.soft_loss]
    if config.alpha is not None:
        return partial(alpha_divergence, alpha=config.alpha, clip=CLIP)
    return partial(adaptive_alpha_divergence, choose=config.choose, clip=CLIP)


def answers_of(task: Task | None) -> Callable[[Tensor], Tensor]:
    """Return what answers are compared as: probabilities of classes or labels, numbers as they are."""
    kind = "classes" if task is None else task.kind
    found: dict[str, Callable[[Tensor], Tensor]] = {"classes": partial(torch.softmax, dim=-1)}
    found["multilabel"] = torch.sigmoid
    return found.get(kind, lambda logits: logits)


def make_rule(
    net: Supernet, config: SupernetConfig, *, steps: int, resolution: int, seed: int, task: Task | None = None
) -> Rule:
    """Return the training rule of the settings.

    Args:
        task: what labels are; None is one class an image.
        steps: steps per epoch.
        resolution: height and width of the images in pixels.

    Raises:
        SettingError: the training is too short for the rule's phases.
    """
    space = net.space
    subnets = config.random_subnets
    weight = config.teacher_weight
    if config.rule == "shrinking":
        plan = phases(space, config.epochs, config.warmup_epochs)
        inplace = config.full_teacher == "inplace"
        return Shrinking(space, plan, seed, subnets, config.kd_ratio, inplace, weight)
    if config.rule == "uniform":
        return Uniform(space, seed, subnets or 1, weight)
    if config.rule == "fair":
        return Fair(space, seed, subnets or most_choices(space), weight, steps)
    size = None if space.resolutions else resolution
    if config.rule == "cream":
        costs = partial(_macs, space, resolution=size, in_chans=net.in_chans, num_classes=net.num_classes)
        matcher = MetaMatcher(net.num_classes, answers_of(task), seed) if config.matching == "meta" else None
        return Cream(space, Board(config.board), costs, seed, subnets or 1, config.kd_ratio, matcher)
    random = 2 if subnets is None else subnets
    if config.rule == "sandwich":
        return Sandwich(space, seed, random, config.order, weight)
    table = MacsTable(space, net.num_classes, net.in_chans, size, seed)
    best = config.rule == "bestup"
    chooser = Chooser(space, seed) if config.chooser == "predictor" else None
    return Attentive(space, seed, random, config.order, weight, table, config.candidates, best, chooser)


def _macs(space: ElasticSpace, arch: Arch, **shape: Any) -> int:
    return space.cost(arch, **shape).macs
