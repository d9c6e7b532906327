"""Every family of teachers: the uncut network is the teacher, and a cut one is what masking says."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from derived_teachers import UNITS, Case
from torch.func import functional_call

from nas_kd.derive.cut import cut, sizes
from nas_kd.derive.network import CutNet

MASKED = 1e-12  # of the output, in float64: sums of fewer numbers, in another order


def test_the_units_are_the_residual_blocks(case: Case) -> None:
    assert len(case.units) == UNITS[case.name]
    for unit in case.units:
        assert unit.groups
        assert unit.shape == unit.out_shape or not unit.removable


def test_the_uncut_network_gives_the_teachers_logits_to_the_bit(case: Case) -> None:
    whole = [case.net.whole(index) for index in range(len(case.units))]
    with torch.no_grad():
        assert torch.equal(case.net(case.images, whole, case.norm), case.teacher(case.images))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_cut_network_is_extracted_to_the_bit(case: Case, seed: int) -> None:
    choices = case.draw(seed)
    norm = case.net.statistics([case.images, case.images + 1], choices)
    student = case.net.extract(choices, norm)
    assert type(student) is type(case.teacher)
    with torch.no_grad():
        assert torch.equal(student(case.images), case.net(case.images, choices, norm))
    assert not {id(p) for p in student.parameters()} & {id(p) for p in case.net.parameters()}


def test_weights_that_a_choice_leaves_out_are_not_read(case: Case) -> None:
    choices = case.draw(2)
    norm = case.net.statistics([case.images], choices)
    with torch.no_grad():
        want = case.net(case.images, choices, norm)
        spoilt = CutNet(case.net.body, case.units, case.net.order).eval()
        filled = 0
        for index, (unit, choice) in enumerate(zip(case.units, choices, strict=True)):
            block = spoilt.body.get_submodule(unit.path)
            slices = {} if choice is None or choice == spoilt.whole(index) else spoilt.twin(index, choice).slices
            for name, parameter in block.named_parameters():
                if choice is None:
                    parameter.fill_(torch.nan)
                    filled += parameter.numel()
                elif name in slices:
                    used = torch.zeros_like(parameter)
                    mask = torch.ones_like(parameter)
                    for dim, places in slices[name].picks:
                        line = torch.zeros(parameter.shape[dim])
                        line[places] = 1
                        mask = mask * line.reshape([-1 if d == dim else 1 for d in range(parameter.ndim)])
                    used = mask > 0
                    parameter.masked_fill_(~used, torch.nan)
                    filled += int((~used).sum())
        assert filled
        assert torch.equal(spoilt(case.images, choices, norm), want)


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_a_twin_is_the_unit_without_what_its_channels_gave(case: Case, share: float) -> None:
    """Cutting channels is leaving out their share of the layers that read them: the same with these weights at zero."""
    teacher = deepcopy(case.teacher).double()
    inputs: dict[str, Any] = {}
    handles = [
        teacher.get_submodule(unit.path).register_forward_hook(
            lambda module, args, out, path=unit.path: inputs.__setitem__(path, args[0].detach())
        )
        for unit in case.units
    ]
    with torch.no_grad():
        teacher(case.images.double())
        for handle in handles:
            handle.remove()
        for unit, order in zip(case.units, case.net.order, strict=True):
            block = teacher.get_submodule(unit.path)
            kept = tuple(sizes(group, (share, 1.0))[0] for group in unit.groups)
            twin = cut(block, unit, kept, order)
            tensors = {**dict(block.named_parameters()), **dict(block.named_buffers())}
            given = {name: twin.slices[name].of(t) if name in twin.slices else t for name, t in tensors.items()}
            found = functional_call(twin.module, given, (inputs[unit.path],))
            masked = deepcopy(block)
            for group, count, rank in zip(unit.groups, kept, order, strict=True):
                for slot in group.slots:
                    layer: Any = masked.get_submodule(slot.layer.removeprefix(f"{unit.path}."))
                    if slot.dim == 1 and getattr(layer, "groups", 1) == 1:
                        gone = [place for part in rank[count:].tolist() for place in slot.index[part]]
                        layer.weight[:, gone] = 0
            want = masked(inputs[unit.path])
            assert (found - want).abs().max() <= MASKED * want.abs().max(), unit.path
