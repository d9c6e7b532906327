"""From the words of settings to training rules and losses."""

from __future__ import annotations

from functools import partial

from nas_kd.config import DIVERGENCES
from nas_kd.config.checks import word
from nas_kd.losses import adaptive_alpha_divergence, alpha_divergence, js_divergence, kl_divergence, reverse_kl
from nas_kd.supernet import Supernet
from nas_kd.train.attentive import Attentive, MacsTable
from nas_kd.train.rules import Rule, Sandwich
from nas_kd.train.sandwich import Divergence
from nas_kd.train.shrinking import Shrinking, phases
from nas_kd.train.single_path import Fair, Uniform, most_choices

CLIP = 5.0  # of the density ratio's power in alpha-divergences: their true gradient has no bound


def divergence_of(name: str, choose: str = "clipped", alpha: float | None = None) -> Divergence:
    """Return the loss of subnets that learn from soft targets.

    Args:
        name: ``alpha``, ``kl``, ``reverse_kl`` or ``js``.
        choose: which values AlphaNet's adaptive pair compares, ``clipped`` or ``unclipped``.
        alpha: a fixed order for ``alpha``, with the density ratio's power clipped at 5; None is the pair.

    Raises:
        SettingError: a name is unknown.
    """
    word("supernet.divergence", name, DIVERGENCES)
    word("supernet.choose", choose, ("clipped", "unclipped"))
    plain = {"kl": kl_divergence, "reverse_kl": reverse_kl, "js": js_divergence}
    if name in plain:
        return plain[name]
    if alpha is not None:
        return partial(alpha_divergence, alpha=alpha, clip=CLIP)
    return partial(adaptive_alpha_divergence, choose=choose, clip=CLIP)


def make_rule(
    name: str,
    net: Supernet,
    *,
    seed: int,
    epochs: int,
    steps: int,
    warmup_epochs: float,
    resolution: int,
    random_subnets: int | None,
    order: str,
    teacher_weight: float,
    candidates: int,
    kd_ratio: float,
    full_teacher: str,
) -> Rule:
    """Make a training rule from settings.

    Args:
        name: ``sandwich``, ``bestup``, ``worstup``, ``shrinking``, ``uniform`` or ``fair``.
        net: the supernet.
        seed: the run's seed.
        epochs: epochs of the training.
        steps: steps an epoch.
        warmup_epochs: epochs of warm-up.
        resolution: the data's height and width in pixels.
        random_subnets: random subnets a step, or None for the rule's own number.
        order: as in ``Sandwich``.
        teacher_weight: share of the label loss that an external teacher takes over.
        candidates: as in ``Attentive``.
        kd_ratio: as in ``Shrinking``.
        full_teacher: ``frozen`` or ``inplace``, as in ``Shrinking``.

    Returns:
        The rule.

    Raises:
        SettingError: the training is too short for the rule's phases.
    """
    space = net.space
    if name == "shrinking":
        plan = phases(space, epochs, warmup_epochs)
        inplace = full_teacher == "inplace"
        return Shrinking(space, plan, seed, random_subnets, kd_ratio, inplace, teacher_weight)
    if name == "uniform":
        return Uniform(space, seed, random_subnets or 1, teacher_weight)
    if name == "fair":
        return Fair(space, seed, random_subnets or most_choices(space), teacher_weight, steps)
    random = 2 if random_subnets is None else random_subnets
    if name == "sandwich":
        return Sandwich(space, seed, random, order, teacher_weight)
    size = None if space.resolutions else resolution
    table = MacsTable(space, net.num_classes, net.in_chans, size, seed)
    return Attentive(space, seed, random, order, teacher_weight, table, candidates, best=name == "bestup")
