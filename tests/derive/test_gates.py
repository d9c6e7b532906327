"""Gates on a teacher's parts: open ones are the teacher, closed ones weights of zero and units that are left out."""

from __future__ import annotations

from copy import deepcopy
from typing import NamedTuple

import pytest
import torch
from derived_teachers import make
from torch import Tensor, nn

import nas_kd
from nas_kd.derive.calling import replaced
from nas_kd.derive.gates import GatedNet, GateGroup, Gates
from nas_kd.derive.supernet import TeacherSupernet
from nas_kd.derive.units import Unit, find_units
from nas_kd.space import Arch
from nas_kd.teacher import Teacher

COST = {"resolution": 32, "in_chans": 3, "num_classes": 10}


FAMILIES = ["cifar_resnet20", "own", "regnety_002", "mobilenetv3_small_100", "convnext_atto", "vit_tiny_patch16_224"]


class Case(NamedTuple):
    teacher: nn.Module
    images: Tensor
    units: list[Unit]


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest) -> Case:
    """A teacher in which no branch is zero, as those of timm begin."""
    teacher, size = make(request.param)
    with torch.no_grad():
        for parameter in teacher.parameters():
            if not parameter.any():
                parameter.normal_(0.0, 0.3)
    images = torch.randn(2, 3, size, size)
    return Case(teacher, images, find_units(teacher, images))


def every_gate(case: Case) -> Gates:
    """A gate on each part of each unit's groups, and on each unit that may be left out."""
    groups = []
    first = 0
    for number, unit in enumerate(case.units):
        counts: list[tuple[int | None, int]] = [(at, group.channels) for at, group in enumerate(unit.groups)]
        for at, count in [*counts, (None, 1)] if unit.removable else counts:
            groups.append(GateGroup(number, at, first, count, 0.001))
            first += count
    return Gates(tuple(groups))


def test_open_gates_are_the_teacher_to_the_bit(case: Case) -> None:
    gates = every_gate(case)
    net = GatedNet(case.teacher, case.units, gates).train()
    with torch.no_grad():
        assert torch.equal(net(case.images), case.teacher(case.images))
    loss = net(case.images).square().mean()
    loss.backward()
    assert net.closed.grad is not None and (net.closed.grad != 0).float().mean() > 0.3


def test_closed_gates_are_outgoing_weights_of_zero_and_units_left_out(case: Case) -> None:
    gates = every_gate(case)
    values = (torch.rand(gates.count, generator=torch.Generator().manual_seed(0)) > 0.4).float()
    masked = deepcopy(case.teacher)
    changes: dict[str, nn.Module] = {}
    for group in gates.groups:
        gone = [part for part, value in enumerate(group.of(values).tolist()) if value == 0]
        unit = case.units[group.unit]
        if group.group is None:
            changes |= {unit.path: nn.Identity()} if gone else {}
            continue
        for slot in unit.groups[group.group].slots:
            layer = masked.get_submodule(slot.layer)
            if (slot.tensor, slot.dim) == ("weight", 1) and getattr(layer, "groups", 1) == 1:
                with torch.no_grad():
                    layer.weight[:, [place for part in gone for place in slot.index[part]]] = 0  # type: ignore[index,operator]
    with torch.no_grad():
        found = GatedNet(case.teacher, case.units, gates)(case.images, values)
        want = replaced(masked, changes)(case.images)
        assert torch.equal(found, want) and not torch.equal(found, case.teacher(case.images))


@pytest.fixture(scope="module")
def resnet() -> TeacherSupernet:
    network, _ = make("cifar_resnet20")
    net = nas_kd.Supernet(nas_kd.teacher_space(Teacher(network, "mine", num_classes=10), resolution=32))
    assert isinstance(net, TeacherSupernet)
    return net


def opened(gates: Gates, net: TeacherSupernet, arch: Arch) -> torch.Tensor:
    """The gates of an arch: 1 for what stays."""
    values = torch.ones(gates.count)
    for group in gates.groups:
        layers = arch.stages[group.unit].layers
        left = 0 if not layers else 1 if group.group is None else int(layers[0][group.group])
        group.of(values)[left:] = 0
    return values


def test_a_part_costs_its_macs(resnet: TeacherSupernet) -> None:
    gates = Gates.of(resnet, COST)
    total = resnet.space.cost(resnet.space.largest(), **COST).macs
    first = gates.groups[0]  # a channel between two 3x3 convolutions from and to 16 channels at 32x32
    assert first.count == 16 and first.cost * total == pytest.approx(2 * 9 * 16 * 32 * 32)
    unit = gates.groups[1]
    assert unit.group is None and unit.cost * total == pytest.approx(2 * 9 * 16 * 16 * 32 * 32)
    assert gates.count == sum(3 * [16 + 1] + 3 * [32 + 1] + 3 * [64 + 1]) - 2  # two units change the size


@pytest.mark.parametrize("column", ["macs", "params"])
def test_what_gates_leave_is_what_the_arch_costs(resnet: TeacherSupernet, column: str) -> None:
    """In units of one group, where costs are linear in it."""
    space = resnet.space
    gates = Gates.of(resnet, COST, column)
    whole = getattr(space.cost(space.largest(), **COST), column)
    for seed in range(5):
        arch = space.sample(seed)
        want = getattr(space.cost(arch, **COST), column) / whole
        assert float(gates.share(opened(gates, resnet, arch))) == pytest.approx(want, abs=1e-5)
    assert float(gates.share(torch.ones(gates.count))) == 1.0


def test_the_prices_gradient_is_the_cost_with_the_gates_sign(resnet: TeacherSupernet) -> None:
    gates = Gates.of(resnet, COST)
    values = torch.randn(gates.count, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    price = gates.price(values)
    price.backward()
    costs = torch.cat([torch.full((group.count,), group.cost) for group in gates.groups])
    assert torch.allclose(values.grad, costs * values.detach().sign())  # type: ignore[arg-type]
    assert float(price.detach()) == pytest.approx(float((costs * values.detach().abs()).sum()), rel=1e-5)


class Bottleneck(nn.Module):
    """Three convolutions, of which the middle one has the channels of both groups, beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Conv2d(8, 6, 1), nn.Conv2d(6, 4, 3, padding=1), nn.Conv2d(4, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 8, H, W) to the same shape."""
        return x + self.three(self.two(self.one(x).relu()).relu())


class Narrow(nn.Module):
    """A network of one bottleneck."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.fc = nn.Conv2d(3, 8, 3, padding=1), Bottleneck(), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to logits (B, 10)."""
        return self.fc(self.block(self.stem(x)).mean((2, 3)))


def test_groups_that_meet_in_a_layer_are_not_charged_twice() -> None:
    """In a bottleneck the 3x3 convolution has both groups' channels: one gate each is charged what both save."""
    torch.manual_seed(0)
    teacher = Teacher(Narrow().eval(), "mine", num_classes=10)
    net = nas_kd.Supernet(nas_kd.teacher_space(teacher, None, (0.5,), resolution=8))
    assert isinstance(net, TeacherSupernet)
    first, second, own = Gates.of(net, {**COST, "resolution": 8}).groups
    total = 64 * (3 * 9 * 8 + 8 * 6 + 6 * 9 * 4 + 4 * 8) + 80
    halves = 64 * (8 * 6 + 6 * 9 * 4 + 4 * 8 - (8 * 3 + 3 * 9 * 2 + 2 * 8)) / total
    assert (first.count, second.count, own.count) == (6, 4, 1)
    assert 3 * first.cost + 2 * second.cost == pytest.approx(halves)
    # alone, a channel of the first saves 8 + 9 * 4 and one of the second 9 * 6 + 8
    assert first.cost / second.cost == pytest.approx((8 + 36) / (54 + 8))
    assert own.cost == pytest.approx(64 * (8 * 6 + 6 * 9 * 4 + 4 * 8) / total)
