"""What each training rule draws: archs of the space, by seed and step alone, in the published proportions."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import typing
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from tiny_spaces import BASIC, FAMILIES, MOBILE, POOLED, VIT, full_net
from torch import Tensor

import nas_kd
from nas_kd.distill import Classification
from nas_kd.losses import kl_divergence
from nas_kd.space import Arch, ElasticSpace
from nas_kd.train import supernet_config as config
from nas_kd.train.attentive import Attentive, MacsTable
from nas_kd.train.loop import StepInfo
from nas_kd.train.options import make_rule
from nas_kd.train.rules import Rule, Sandwich, SubnetTarget
from nas_kd.train.sandwich import Images, teach
from nas_kd.train.single_path import Fair, Uniform, most_choices

EPOCHS, STEPS = 12, 5
QUICK = (None, 0, 300, 64)  # resolution, seed, size and bins of a table
RULES = typing.get_args(config.Rule)
KINDS = [*RULES, "shrinking in place"]
rules = pytest.mark.parametrize("kind", KINDS)
families = pytest.mark.parametrize("space", FAMILIES, ids=lambda s: s.name)


def make(kind: str, space: ElasticSpace, **changed: Any) -> Rule:
    name, _, inplace = kind.partition(" ")
    settings: dict[str, Any] = {
        "rule": name,
        "epochs": EPOCHS,
        "full_teacher": "inplace" if inplace else "frozen",
    }
    own = {key: changed.pop(key) for key in ("steps", "resolution", "seed") if key in changed}
    around = {"steps": STEPS, "resolution": space.resolution, "seed": 3} | own
    return make_rule(full_net(space), config.SupernetConfig(**settings | changed), **around)


def by_label(archs: Sequence[Arch]) -> Tensor:
    """A made-up score, different for every arch."""
    return torch.tensor([float(int(arch.key, 16) % 10_007) for arch in archs])


def moments(epochs: Sequence[int] = range(EPOCHS)) -> list[StepInfo]:
    return [StepInfo(epoch, step, 0.0) for epoch in epochs for step in range(STEPS)]


def small_table(space: ElasticSpace, size: int = 400, **changed: int) -> MacsTable:
    return MacsTable(space, 6, 3, size=size, **changed)


@pytest.fixture(autouse=True)
def quick_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MacsTable.__init__, "__defaults__", QUICK)


@families
@rules
def test_archs_are_of_the_space(kind: str, space: ElasticSpace) -> None:
    rule = make(kind, space)
    drawn = set()
    for info in moments():
        subnet_targets = rule.subnet_targets(info, by_label)
        for subnet in subnet_targets:
            space.validate(subnet.arch)
            assert subnet.labels + subnet.soft > 0
            drawn.add(subnet.arch)
        if rule.has_largest:
            largest = space.largest()  # in the full network's phase at any input size
            assert replace(subnet_targets[0].arch, resolution=largest.resolution) == largest
            assert not subnet_targets[0].inplace and all(subnet.inplace for subnet in subnet_targets[1:])
        else:
            assert not any(subnet.inplace for subnet in subnet_targets)
    assert len(drawn) > 10


@rules
def test_draws_are_a_function_of_seed_and_step(kind: str) -> None:
    one, again, other = make(kind, MOBILE), make(kind, MOBILE), make(kind, MOBILE, seed=4)
    for info in reversed(moments()):
        assert one.subnet_targets(info, by_label) == again.subnet_targets(info._replace(progress=0.5), by_label)
    late = moments([EPOCHS - 1])
    assert [one.subnet_targets(m, by_label) for m in late] != [other.subnet_targets(m, by_label) for m in late]


def test_draws_are_the_same_in_another_process() -> None:
    code = (
        "from test_rules import *\n"
        "MacsTable.__init__.__defaults__ = QUICK\n"
        "for kind in KINDS:\n"
        "    rule = make(kind, MOBILE)\n"
        "    for m in moments([0, 7, 11]): print(*(l.arch.key for l in rule.subnet_targets(m, by_label)))\n"
    )
    here = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    env = os.environ | {"PYTHONHASHSEED": "77", "PYTHONPATH": here}
    theirs = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    mine = [
        " ".join(subnet.arch.key for subnet in rule.subnet_targets(info, by_label))
        for rule in (make(kind, MOBILE) for kind in KINDS)
        for info in moments([0, 7, 11])
    ]
    assert theirs.stdout.splitlines() == mine


@pytest.mark.parametrize("space", [BASIC, MOBILE], ids=lambda s: s.name)
@rules
def test_only_weights_of_the_steps_archs_count(kind: str, space: ElasticSpace) -> None:
    """NaN everywhere else changes no loss, and gets no gradient."""
    rule = make(kind, space)
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    y = torch.arange(4)
    for info in (StepInfo(0, 0, 0.0), StepInfo(EPOCHS - 1, 1, 0.0)):
        # a largest uses everything: look at what the others do beside it
        subnet_targets = rule.subnet_targets(info, by_label)
        subnet_targets = [SubnetTarget(subnet.arch) for subnet in subnet_targets if subnet.arch != space.largest()]
        net = full_net(space)
        used = {key: torch.zeros_like(p, dtype=torch.bool) for key, p in net.named_parameters()}
        for subnet in subnet_targets:
            for key, part in net.extract(subnet.arch).named_parameters():
                there = used[key]
                for dim, size in enumerate(part.shape):
                    there = there.narrow(dim, (there.shape[dim] - size) // 2 if dim > 1 else 0, size)
                there.fill_(True)
        with torch.no_grad():
            for key, parameter in net.named_parameters():
                parameter[~used[key]] = float("nan")
        settings: dict[str, Any] = {"task": Classification(), "divergence": kl_divergence}
        losses = teach(net, Images(x), y, subnet_targets, **settings)
        assert all(loss.isfinite() for loss in losses)
        for key, parameter in net.named_parameters():
            if not used[key].any():
                assert parameter.grad is None, key
            elif parameter.grad is not None:
                assert parameter.grad.isfinite().all() and not parameter.grad[~used[key]].any(), key


# ---- sandwich ----------------------------------------------------------------------------------------


def test_order_of_a_sandwich() -> None:
    info = StepInfo(2, 1, 0.0)
    second, last = (Sandwich(BASIC, 5, 3, order).archs(info) for order in ("smallest_second", "smallest_last"))
    assert second[:2] == [BASIC.largest(), BASIC.smallest()] and last[0] == BASIC.largest()
    assert last == [second[0], *second[2:], second[1]]


# ---- AttentiveNAS ------------------------------------------------------------------------------------


@families
def test_bins_are_drawn_as_often_as_archs_fall_into_them(space: ElasticSpace) -> None:
    table = small_table(space, bins=8)
    draws = 4000
    drawn = [table.draw(1, "draw", number)[0] for number in range(draws)]
    macs = space.costs(space.encode(drawn), in_chans=3, num_classes=6)["macs"].to_numpy()
    assert set(macs) <= set(table.macs)
    share = np.bincount(table.bin, minlength=8) / len(table.bin)
    edges = np.linspace(table.macs.min(), table.macs.max(), 9)
    found = np.bincount(np.searchsorted(edges[1:-1], macs, side="right"), minlength=8)
    assert share.sum() == pytest.approx(1) and (share > 0).sum() > 3
    assert not found[share == 0].any()
    assert chisquare(found[share > 0], draws * share[share > 0]).pvalue > 1e-4


def test_macs_of_the_table_are_the_archs_own() -> None:
    """An elastic input size counts, and one of the data's where the space has none."""
    for space, resolution in ((MOBILE, None), (BASIC, 16)):
        table = small_table(space, resolution=resolution)
        for row in range(20):
            (arch,) = space.decode(table.codes[row : row + 1])
            cost = space.cost(arch, resolution=resolution, in_chans=3, num_classes=6)
            assert cost.macs == table.macs[row]


def test_candidates_are_different_archs_of_one_size() -> None:
    table = small_table(MOBILE, size=1000, bins=16)
    width = (table.macs.max() - table.macs.min()) / 16
    sizes = Counter()
    for number in range(200):
        drawn = table.draw(3, "draw", number)
        macs = [MOBILE.cost(arch, in_chans=3, num_classes=6).macs for arch in drawn]
        assert max(macs) - min(macs) <= width and len(set(drawn)) == len(drawn)
        sizes[len(drawn)] += 1
    assert sizes[3] > 180  # a bin of one or two archs has no more


@pytest.mark.parametrize("kind", ["bestup", "worstup"])
def test_the_best_or_the_worst_candidate_is_trained(kind: str) -> None:
    rule, asked = make(kind, MOBILE, random_subnets=2, candidates=4), []

    def watching(archs: Sequence[Arch]) -> Tensor:
        asked.append(list(archs))
        return by_label(archs)

    assert isinstance(rule, Attentive)
    for info in moments([0, 1]):
        asked.clear()
        subnet_targets = rule.subnet_targets(info, watching)
        assert [subnet.arch for subnet in subnet_targets[:2]] == [MOBILE.largest(), MOBILE.smallest()]
        choose = min if kind == "bestup" else max
        assert [subnet.arch for subnet in subnet_targets[2:]] == [
            choose(drawn, key=lambda arch: float(by_label([arch]))) for drawn in asked
        ]
        assert len(asked) == 2 and all(1 <= len(drawn) <= 4 for drawn in asked)


# ---- single paths ------------------------------------------------------------------------------------


def test_uniform_draws_every_value_equally_often() -> None:
    rule = Uniform(VIT, 0, 4)
    archs = [subnet.arch for m in moments(range(100)) for subnet in rule.subnet_targets(m, by_label)]
    assert len(archs) == 2000 and all(
        subnet == SubnetTarget(subnet.arch) for subnet in rule.subnet_targets(moments()[0], by_label)
    )
    stage = VIT.stages[0]
    counts = {
        "resolution": ([arch.resolution for arch in archs], VIT.resolutions),
        "stem": ([arch.stem[0] for arch in archs], (12, 18, 24)),
        "depth": ([arch.stages[0].depth for arch in archs], stage.depths),
        "first": ([arch.stages[0].layers[0] for arch in archs], stage.groups()[0]),
    }
    for what, (drawn, values) in counts.items():
        assert chisquare([drawn.count(v) for v in values]).pvalue > 1e-4, what


@families
def test_fair_uses_every_choice_equally_often(space: ElasticSpace) -> None:
    """At every step two choices of anything have been used equally often, but for one."""
    rule = make("fair", space)
    assert isinstance(rule, Fair)
    tallies: dict[Any, Counter[Any]] = {}
    for number in range(60):
        info = StepInfo(number // STEPS, number % STEPS, 0.0)
        for subnet in rule.subnet_targets(info, by_label):
            arch = subnet.arch
            used = {"resolution": arch.resolution, "stem": arch.stem, "head": arch.head}
            for index, (stage, candidate) in enumerate(zip(space.stages, arch.stages, strict=True)):
                group = next(g for g in stage.groups() if set(candidate.layers) <= set(g))
                used[index, "kind"] = (group, candidate.depth)
                if not stage.keeps_width:
                    used[index, "width"] = candidate.width
                for position, layer in enumerate(candidate.layers):
                    used[index, position, group] = layer
            for what, value in used.items():
                tallies.setdefault(what, Counter())[value] += 1
        for index, stage in enumerate(space.stages):
            for what, choices in (
                ((index, "kind"), list(product(stage.groups(), stage.depths))),
                ((index, "width"), [] if stage.keeps_width else stage.widths),
                *(((index, 0, group), group) for group in stage.groups()),
            ):
                counts = [tallies.get(what, Counter())[choice] for choice in choices]
                assert not counts or max(counts) - min(counts) <= 1, (what, counts)
    for what, choices in (("stem", space.stem.choices()), ("head", space.head.choices())):
        counts = [tallies[what][choice] for choice in choices]
        assert max(counts) - min(counts) <= 1


def test_a_step_of_fair_uses_each_choice_of_a_layer_once() -> None:
    rule = make("fair", BASIC)
    assert most_choices(BASIC) == 3 and most_choices(MOBILE) == 4 and most_choices(POOLED) == 4
    for info in moments():
        first = [subnet.arch.stages[0].layers[0] for subnet in rule.subnet_targets(info, by_label)]
        assert sorted(first) == [(4,), (6,), (8,)]


@pytest.mark.parametrize("kind", ["uniform", "fair"])
def test_a_teacher_may_take_the_place_of_labels(kind: str) -> None:
    for subnet in make(kind, BASIC, teacher_weight=0.25).subnet_targets(moments()[0], by_label):
        assert (subnet.labels, subnet.soft, subnet.inplace) == (0.75, 0.25, False)


def test_rules_can_be_named_from_outside() -> None:
    assert set(RULES) == {"sandwich", "bestup", "worstup", "shrinking", "uniform", "fair", "cream"}
    assert inspect.signature(nas_kd.train_supernet).parameters["rule"].default == "sandwich"
