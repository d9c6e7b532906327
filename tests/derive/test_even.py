"""Even cuts of a teacher: shares of depth and width that keep a budget, against an independent count."""

from __future__ import annotations

import pytest
import torch

import nas_kd
from nas_kd.derive.space import TeacherSpace
from nas_kd.space import Cost
from nas_kd.teacher import load_teacher

COST = {"resolution": 32, "in_chans": 3, "num_classes": 10}


@pytest.fixture(scope="module")
def space() -> TeacherSpace:
    torch.manual_seed(0)
    return nas_kd.teacher_space(load_teacher("cifar_resnet32", num_classes=10), resolution=32, importance="l1")


@pytest.mark.parametrize("share", [0.4, 0.2, 0.1])
def test_cuts_use_up_the_budget_and_are_even(space: TeacherSpace, share: float) -> None:
    most = share * space.cost(space.largest(), **COST).macs

    def fits(cost: Cost) -> bool:
        return cost.macs <= most

    cuts = space.even_cuts(fits, COST)
    width = cuts.width()
    assert width is not None and all(candidate.layers for candidate in width.arch.stages)
    shares = [
        candidate.layers[0][0] / full
        for candidate, full in zip(width.arch.stages, [16] * 5 + [32] * 5 + [64] * 5, strict=True)
    ]
    assert max(shares) - min(shares) <= 1 / 16  # rounding of 16 channels
    for cut in (width, cuts.depth(), *cuts.both()):
        if cut is not None:
            assert cut.space.cost(cut.arch, **COST).macs <= most
    # two parts of 64 more, which is a channel more somewhere, would be too much
    wider = space.offering((width.width + 2 / 64,), multiple=1)
    narrow = [next(c for c in stage.candidates() if c.layers) for stage in wider.stages]
    assert wider.cost(wider.arch(narrow), **COST).macs > most


def test_which_blocks_stay_is_spread_over_a_run(space: TeacherSpace) -> None:
    whole = space.cost(space.largest(), **COST).macs
    depth = space.even_cuts(lambda cost: cost.macs <= 0.65 * whole, COST).depth()
    assert depth is not None and depth.depth == pytest.approx(0.6)
    stays = [bool(candidate.layers) for candidate in depth.arch.stages]
    assert stays == [True, False, True, False, True] * 3  # 0, 2 and 4 of 5
    assert all(candidate.layers in ((), ((16,),), ((32,),), ((64,),)) for candidate in depth.arch.stages)


def test_simple_archs_are_of_the_space(space: TeacherSpace) -> None:
    whole = space.cost(space.largest(), **COST).macs
    found = space.simple_archs(lambda cost: cost.macs <= 0.3 * whole, COST)
    assert {"even_width", "even_depth", "even_both_1"} <= set(found)
    for arch in found.values():
        space.validate(arch)
        assert space.cost(arch, **COST).macs <= 0.3 * whole
    assert space.simple_archs(lambda cost: False, COST) == {}


def test_other_spaces_have_none() -> None:
    assert nas_kd.load_space("digits").simple_archs(lambda cost: True, {}) == {}
