"""Every family of teachers: the uncut network is the teacher, and a cut one is what masking says."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from derived_teachers import UNITS, Case
from torch import Tensor
from torch.func import functional_call

from nas_kd.derive.cut import cut, sizes
from nas_kd.derive.groups import Group
from nas_kd.derive.network import CutNet

STREAMS = {
    "cifar_resnet20": 3,
    "own": 1,
    "plain": 4,
    "resnet18": 4,
    "resnet50": 5,
    "resnext50_32x4d": 5,
    "regnety_002": 5,
    "mobilenetv2_100": 9,
    "mobilenetv3_small_100": 8,
    "mobilenetv4_conv_small": 7,
    "efficientnet_lite0": 9,
    "convnext_atto": 4,
    "vit_tiny_patch16_224": 1,
    "deit_tiny_distilled_patch16_224": 1,
    "swin_tiny_patch4_window7_224": 4,
    "nf_resnet26": 5,
    "resnetv2_50d_gn": 5,
    "repvgg_a0": 5,
    "densenet121": 4,  # of what its blocks begin with; the features that they add go into all later layers
}
MASKED = 1e-12  # of the output, in float64: sums of fewer numbers, in another order


def test_the_units_are_the_residual_blocks(case: Case) -> None:
    assert len(case.units) == UNITS[case.name]
    assert len(case.streams) == STREAMS[case.name]
    assert all(stream.channels > 1 for stream in case.streams)
    for unit in case.units:
        assert unit.groups or case.name == "repvgg_a0"
        assert unit.shape == unit.out_shape or not unit.removable


def test_the_uncut_network_gives_the_teachers_logits_to_the_bit(case: Case) -> None:
    whole = [case.net.whole(index) for index in range(len(case.units) + len(case.streams))]
    with torch.no_grad():
        assert torch.equal(case.net(case.images, whole, case.norm), case.teacher(case.images))


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
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
    cut: list[tuple[Group, int, Tensor]] = []
    spoilt = CutNet(case.net.body, case.units, case.net.order, case.streams).eval()
    with torch.no_grad():
        want = case.net(case.images, choices, norm)
        for number, choice in enumerate(choices):
            if choice is None:
                for parameter in spoilt.body.get_submodule(case.units[number].path).parameters():
                    parameter.fill_(torch.nan)
                continue
            one = number >= len(case.units)
            groups = [case.streams[number - len(case.units)]] if one else case.units[number].groups
            cut += list(zip(groups, choice, case.net.order[number], strict=True))
        for group, count, rank in cut:
            gone = rank[count:].tolist()
            for slot in group.slots if gone else ():
                layer = spoilt.body.get_submodule(slot.layer)
                tensor = dict(layer.named_parameters(recurse=False)).get(slot.tensor)
                if tensor is not None and not (slot.dim == 1 and getattr(layer, "groups", 1) > 1):
                    tensor.index_fill_(
                        slot.dim, torch.tensor([i for part in gone for i in slot.index[part]]), torch.nan
                    )
        assert any(parameter.isnan().any() for parameter in spoilt.body.parameters())
        assert torch.equal(spoilt(case.images, choices, norm), want)


@pytest.mark.parametrize("share", [0.25, pytest.param(0.5, marks=pytest.mark.slow)])
def test_a_twin_is_the_unit_without_what_its_channels_gave(case: Case, share: float) -> None:
    """Cutting channels is leaving out their share of the layers that read them: the same with these weights at zero."""
    teacher = deepcopy(case.teacher).double()
    inputs: dict[str, Any] = {}
    handles = [
        teacher.get_submodule(unit.path).register_forward_hook(
            lambda module, args, out, path=unit.path: inputs.__setitem__(path, deepcopy(args))
        )
        for unit in case.units
    ]
    with torch.no_grad():
        teacher(case.images.double())
        for handle in handles:
            handle.remove()
        for unit, order in zip(case.units, case.net.order, strict=False):
            block = teacher.get_submodule(unit.path)
            kept = tuple(sizes(group, (share, 1.0))[0] for group in unit.groups)
            twin = cut(block, unit, kept, order)
            tensors = {**dict(block.named_parameters()), **dict(block.named_buffers())}
            given = {name: twin.slices[name].of(t) if name in twin.slices else t for name, t in tensors.items()}
            found = functional_call(twin.module, given, inputs[unit.path])
            masked = deepcopy(block)
            for group, count, rank in zip(unit.groups, kept, order, strict=True):
                for slot in group.slots:
                    layer: Any = masked.get_submodule(slot.layer.removeprefix(f"{unit.path}."))
                    if (slot.tensor, slot.dim) == ("weight", 1) and getattr(layer, "groups", 1) == 1:
                        gone = [place for part in rank[count:].tolist() for place in slot.index[part]]
                        layer.weight[:, gone] = 0
            want = masked(*inputs[unit.path])
            assert (found - want).abs().max() <= MASKED * want.abs().max(), unit.path
