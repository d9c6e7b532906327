"""Progressive shrinking: the published phases, what is elastic in each, and the network that teaches."""

from __future__ import annotations

import copy

import pytest
import torch
from scipy.stats import chisquare
from tiny_spaces import BASIC, BOTTLENECK, FAMILIES, MOBILE, POOLED, VIT, full_net

import nas_kd
from nas_kd.blocks import ConvStem, LinearHead, MBStage
from nas_kd.errors import SettingError
from nas_kd.nn import at_resolution
from nas_kd.space import ElasticSpace
from nas_kd.train.loop import StepInfo
from nas_kd.train.optim import Phased, Schedule
from nas_kd.train.rules import SubnetTarget
from nas_kd.train.shrinking import FullNet, Shrinking, phases, restricted, widened

OFA = ElasticSpace(
    "ofa",
    ConvStem(8),
    (
        MBStage(widths=(8,), depths=(2, 3, 4), kernels=(3, 5, 7), expands=(3, 4, 6), ses=(False,)),
        MBStage(widths=(16,), depths=(2, 3, 4), kernels=(3, 5, 7), expands=(3, 4, 6), ses=(True,), stride=2),
    ),
    LinearHead(),
    resolution=16,
    resolutions=(12, 16),
)
families = pytest.mark.parametrize("space", FAMILIES, ids=lambda s: s.name)


def test_phases_are_the_published_ones() -> None:
    """605 epochs are published in all; rates a GPU are 2.6 / 32 for the full network, then as in the table."""
    found = phases(OFA, 605, 5.0)
    assert [phase.name for phase in found] == ["full", "kernel", "depth_1", "depth_2", "expand_1", "expand_2"]
    assert [phase.epochs for phase in found] == [180, 125, 25, 125, 25, 125]
    assert [phase.start for phase in found] == [0, 180, 305, 330, 455, 480]
    assert [phase.warmup for phase in found] == [5, 5, 0, 5, 0, 5]
    assert [phase.subnets for phase in found] == [1, 1, 2, 2, 4, 4]
    rates = [phase.lr * 2.6 / 32 for phase in found]
    assert rates == pytest.approx([0.08125, 3e-2, 2.5e-3, 7.5e-3, 2.5e-3, 7.5e-3])
    assert [phase.sorts for phase in found] == [False] * 4 + [True] * 2
    choices = [(p.space.stages[0].kernels, p.space.stages[0].expands, p.space.stages[0].depths) for p in found]
    assert choices == [
        ((7,), (6,), (4,)),
        ((3, 5, 7), (6,), (4,)),
        ((3, 5, 7), (6,), (3, 4)),
        ((3, 5, 7), (6,), (2, 3, 4)),
        ((3, 5, 7), (4, 6), (2, 3, 4)),
        ((3, 5, 7), (3, 4, 6), (2, 3, 4)),
    ]
    assert all(phase.space.resolutions == (12, 16) for phase in found)
    assert found[-1].space.hash == OFA.hash


@pytest.mark.parametrize(
    ("space", "names"),
    [
        (BASIC, ["full", "depth_1", "depth_2", "expand_1", "expand_2"]),  # no kernels
        (POOLED, ["full", "kernel", "depth_1", "depth_2", "expand_1", "expand_2"]),
        (BOTTLENECK, ["full", "depth_1", "depth_2", "expand_1", "expand_2"]),
        (VIT, ["full", "depth_1", "depth_2", "expand_1", "expand_2"]),
        (restricted(OFA, kernels=None, depths=2, others=2), ["full", "kernel", "depth_2", "expand_2"]),
        (restricted(OFA, kernels=1, depths=1, others=None), ["full", "expand_1", "expand_2"]),
        (restricted(OFA, kernels=1, depths=1, others=1), ["full"]),
    ],
)
def test_phases_without_anything_new_are_left_out(space: ElasticSpace, names: list[str]) -> None:
    found = phases(space, 40, 1.0)
    assert [phase.name for phase in found] == names
    assert found[-1].space.hash == space.hash
    assert sum(phase.epochs for phase in found) == 40 and min(phase.epochs for phase in found) >= 1
    hashes = [phase.space.hash for phase in found]
    assert len(set(hashes)) == len(hashes)


def test_every_phase_has_an_epoch_or_the_training_is_refused() -> None:
    assert [phase.epochs for phase in phases(OFA, 6, 1.0)] == [1] * 6
    with pytest.raises(SettingError, match=r"supernet.epochs=5: .* at least 6 .*full, kernel, depth_1, depth_2"):
        phases(OFA, 5, 1.0)


@families
def test_what_is_not_yet_elastic_is_the_largest(space: ElasticSpace) -> None:
    largest = space.largest()
    for phase in phases(space, 12, 1.0):
        archs = [widened(phase.space.sample(seed), phase.space, space) for seed in range(60)]
        for arch in archs:
            space.validate(arch)
        widest = widened(phase.space.largest(), phase.space, space)
        assert widest == largest
        if phase.name in ("full", "kernel", "depth_1", "depth_2"):
            assert all((arch.stem, arch.head) == (largest.stem, largest.head) for arch in archs)
            assert all(a.width == b.width for arch in archs for a, b in zip(arch.stages, largest.stages, strict=True))
        depths = {arch.stages[-1].depth for arch in archs}
        elastic = {"full": 1, "kernel": 1, "depth_1": 2}.get(phase.name)
        assert depths == set(space.stages[-1].depths[-elastic:] if elastic else space.stages[-1].depths)


def test_an_elastic_stem_and_head_are_written_as_the_whole_space_does() -> None:
    part = restricted(MOBILE, kernels=None, depths=None, others=1)
    assert part.sample(0).stem == () and widened(part.sample(0), part, MOBILE).stem == (8,)
    assert widened(part.sample(0), part, MOBILE).head == (20,)
    part = restricted(BOTTLENECK, kernels=None, depths=None, others=1)
    arch = widened(part.sample(0), part, BOTTLENECK)
    assert arch.stem == BOTTLENECK.stem.largest() and len(arch.stem) == 3


def test_draws_of_a_phase_are_uniform() -> None:
    rule = Shrinking(OFA, phases(OFA, 605, 5.0), seed=1)
    subnet_targets = [subnet for step in range(300) for subnet in rule.subnet_targets(StepInfo(460, step, 0.0), None)]  # type: ignore[arg-type]
    assert len(subnet_targets) == 1200
    first = [subnet.arch.stages[0].layers[0] for subnet in subnet_targets]
    for values, drawn in (
        ((3, 5, 7), [kernel for kernel, _, _ in first]),
        ((4, 6), [expand for _, expand, _ in first]),
        ((2, 3, 4), [subnet.arch.stages[0].depth for subnet in subnet_targets]),
        ((12, 16), [subnet.arch.resolution for subnet in subnet_targets]),
    ):
        assert set(drawn) == set(values)
        assert chisquare([drawn.count(v) for v in values]).pvalue > 1e-4


@pytest.mark.parametrize("inplace", [False, True])
def test_what_subnets_learn_from(inplace: bool) -> None:
    rule = Shrinking(OFA, phases(OFA, 605, 5.0), kd_ratio=0.5, inplace=inplace, teacher_weight=0.25)
    (full,) = rule.subnet_targets(StepInfo(0, 0, 0.0), None)  # type: ignore[arg-type]
    assert full[1:] == (0.75, 0.25, False)
    later = rule.subnet_targets(StepInfo(500, 0, 0.0), None)  # type: ignore[arg-type]
    if inplace:
        first, *later = later
        assert first == SubnetTarget(OFA.largest(), 0.75, 0.25, False)
    assert len(later) == 4 and all(subnet[1:] == (1.0, 0.5, inplace) for subnet in later)
    assert (rule.frozen, rule.has_largest) == (not inplace, inplace)
    assert not Shrinking(OFA, rule.phases, kd_ratio=0.0).frozen


def test_rates_begin_anew_in_every_phase() -> None:
    rule = Shrinking(OFA, phases(OFA, 605, 5.0))
    rates = rule.rates(Schedule(0.4, 5.0, final=0.1))
    assert isinstance(rates, Phased)
    steps = 3
    for phase in rule.phases:
        alone = Schedule(0.4 * phase.lr, phase.warmup, final=0.1)
        for step in (0, 1, phase.epochs * steps // 2, phase.epochs * steps - 1):
            assert rates.at(phase.start * steps + step, steps, 605) == alone.at(step, steps, phase.epochs)


def test_phases_start_where_the_one_before_ends() -> None:
    rule = Shrinking(OFA, phases(OFA, 60, 1.0))
    starts = {epoch: rule.starting(epoch) for epoch in range(61) if rule.starting(epoch) is not None}
    assert list(starts.values()) == [0, 1, 2, 3, 4, 5] and list(starts) == [p.start for p in rule.phases]
    for epoch in range(60):
        phase = rule.phase(epoch)
        assert phase.start <= epoch < phase.start + phase.epochs


@pytest.mark.parametrize("space", [BASIC, MOBILE, VIT], ids=lambda s: s.name)
def test_the_full_network_is_frozen_as_it_was(space: ElasticSpace) -> None:
    net = full_net(space, kernel_transform=True)
    full = FullNet(net)
    x = torch.randn(6, 3, 8, 8)
    (norm,) = nas_kd.calibrate(net, [at_resolution(x, full.arch.resolution)], [full.arch])
    full.take(net, norm)
    wanted = net.eval()(at_resolution(x, full.arch.resolution), full.arch, norm).detach()
    assert torch.equal(full(x), wanted) and not full(x).requires_grad
    state = copy.deepcopy(full.state_dict())
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    assert torch.equal(full.train()(x), wanted)  # in evaluation mode whatever the loop sets
    assert not any(module.training for module in full.modules())
    assert not any(parameter.requires_grad for parameter in full.parameters())
    again = FullNet(net)
    again.load_state_dict(state)  # what a resumed training reads
    assert torch.equal(again(x), wanted)
    one_by_one = torch.cat([full(image[None]) for image in x])
    torch.testing.assert_close(one_by_one, wanted)  # its targets do not depend on the batch
