"""Training rules and losses from settings."""

from __future__ import annotations

from functools import partial

from nas_kd.losses import adaptive_alpha_divergence, alpha_divergence, js_divergence, kl_divergence, reverse_kl
from nas_kd.supernet import Supernet
from nas_kd.train.attentive import Attentive, MacsTable
from nas_kd.train.rules import Rule, Sandwich
from nas_kd.train.sandwich import Divergence
from nas_kd.train.shrinking import Shrinking, phases
from nas_kd.train.single_path import Fair, Uniform, most_choices
from nas_kd.train.supernet_config import SupernetConfig

CLIP = 5.0  # of the power of the density ratio in alpha-divergences, whose true gradient is unbounded


def divergence_of(config: SupernetConfig) -> Divergence:
    """Return the loss of subnets that learn from soft targets; density ratios of alpha-divergences are clipped at 5."""
    plain = {"kl": kl_divergence, "reverse_kl": reverse_kl, "js": js_divergence}
    if config.soft_loss in plain:
        return plain[config.soft_loss]
    if config.alpha is not None:
        return partial(alpha_divergence, alpha=config.alpha, clip=CLIP)
    return partial(adaptive_alpha_divergence, choose=config.choose, clip=CLIP)


def make_rule(net: Supernet, config: SupernetConfig, *, steps: int, resolution: int, seed: int) -> Rule:
    """Return the training rule of the settings.

    Args:
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
    random = 2 if subnets is None else subnets
    if config.rule == "sandwich":
        return Sandwich(space, seed, random, config.order, weight)
    size = None if space.resolutions else resolution
    table = MacsTable(space, net.num_classes, net.in_chans, size, seed)
    return Attentive(space, seed, random, config.order, weight, table, config.candidates, best=config.rule == "bestup")
