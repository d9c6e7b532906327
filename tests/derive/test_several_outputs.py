"""Residual blocks that give several tensors, of which the network needs the first, are units like others."""

from __future__ import annotations

import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import nas_kd
from nas_kd.data import Data
from nas_kd.derive.supernet import TeacherSupernet, of_teacher
from nas_kd.nn.cutting import CutPlan, LeftOut
from nas_kd.space import Arch, Candidate
from nas_kd.teacher import Teacher

SHAPE = {"resolution": 8, "in_chans": 1, "num_classes": 10}


class Block(nn.Module):
    """Gives what goes on, and two things that nobody reads."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(width, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.two = nn.Conv2d(16, width, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Any:
        inside = F.relu(self.norm(self.one(x)))
        return F.relu(x + self.two(inside)), inside, None


class Net(nn.Module):
    def __init__(self, num_classes: int = 10, in_chans: int = 1) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_chans, 12, 3, padding=1)
        self.blocks = nn.ModuleList(Block(12) for _ in range(3))
        self.fc = nn.Linear(12, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x, *_ = block(x)
        return self.fc(x.mean((2, 3)))


@pytest.fixture(scope="module")
def data() -> Data:
    return nas_kd.load_data("digits", subset=200, rate=0.2, select=0.2)


@pytest.fixture(scope="module")
def teacher(data: Data) -> Teacher:
    torch.manual_seed(0)
    network = Net()
    for parameter in network.parameters():
        parameter.data.mul_(1.5)
    return nas_kd.load_teacher(network).bind(data)


@pytest.fixture
def net(teacher: Teacher, data: Data) -> TeacherSupernet:
    return of_teacher(nas_kd.Supernet(nas_kd.teacher_space(teacher, data, resolution=8)))


def some(net: TeacherSupernet) -> Arch:
    """Return the arch whose first block is left out and whose second is narrow."""
    whole = net.space.largest().stages
    narrow = Candidate(whole[1].width, ((4,),))
    return net.space.arch([Candidate(whole[0].width, ()), narrow, *whole[2:]])


def test_blocks_are_units_that_may_go(net: TeacherSupernet) -> None:
    assert [(unit.path, unit.removable, unit.more) for unit in net.cuts.units] == [
        (f"blocks.{number}", True, 2) for number in range(3)
    ]
    assert [group.channels for unit in net.cuts.units for group in unit.groups] == [16, 16, 16]


def test_the_largest_is_the_teacher(net: TeacherSupernet, teacher: Teacher, data: Data) -> None:
    x = teacher.normalised(next(iter(data.test.clean(20))).x)
    assert torch.equal(net.train()(x, net.space.largest()), deepcopy(teacher.network).train()(x))


def test_a_cut_network_costs_and_computes_what_its_parts_do(net: TeacherSupernet, data: Data) -> None:
    arch = some(net)
    images = data.train.raw(torch.arange(64)).permute(0, 3, 1, 2) / 255.0
    network: Any = net.extract(arch, nas_kd.calibrate(net, [images], archs=[arch])[0]).eval()
    assert isinstance(network.blocks[0], LeftOut) and network.blocks[1].one.out_channels == 4
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    want = network.stem(x)
    for block in list(network.blocks)[1:]:
        want = block(want)[0]
    assert torch.equal(network(x), network.fc(want.mean((2, 3))))
    macs = sum(
        layer.weight.numel() * (64 if isinstance(layer, nn.Conv2d) else 1)
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    )
    assert net.space.cost(arch, **SHAPE) == (macs, sum(p.numel() for p in network.parameters()))


@pytest.mark.parametrize("score", ["local", "replace_one"])
def test_choices_are_rated(net: TeacherSupernet, teacher: Teacher, data: Data, score: Any) -> None:
    tables = nas_kd.rate_units(net, teacher, data, score=score, images=32)
    for table in tables:
        whole = table["score"][table["macs"].idxmax()]
        assert whole == pytest.approx(0.0, abs=1e-6) and (table["score"] > 1e-6).sum() == len(table) - 1


def test_cuts_are_repaired_and_a_student_is_handed_over(
    net: TeacherSupernet, teacher: Teacher, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arch = some(net)

    def lost() -> float:
        tables = nas_kd.rate_units(net, teacher, data, images=32)
        return sum(float(table["score"][table["macs"] > table["macs"].min()].sum()) for table in tables)

    before = lost()
    nas_kd.repair_units(net, teacher, data, epochs=25, batch_size=16, lr=1e-2)
    assert lost() < before  # 0.71 to 0.90 of it over five seeds
    student = nas_kd.repair_student(net, arch, teacher, data, student_epochs=1, batch_size=32)
    monkeypatch.setitem(sys.modules, "several_outputs", sys.modules[Net.__module__])
    kept = nas_kd.retrain(
        student, teacher, data, method="kd", epochs=1, batch_size=32, lr=1e-3, factory="several_outputs:Net"
    )
    folder = tmp_path / "student"
    nas_kd.save_student(kept, folder)
    again = nas_kd.load_student(folder, factory="several_outputs:Net")
    x = torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(again(x), kept(x))
    assert isinstance(again.get_submodule("blocks.0"), LeftOut)


def test_gates_find_an_arch(net: TeacherSupernet, teacher: Teacher, data: Data) -> None:
    tables = nas_kd.rate_units(net, teacher, data, images=32)
    found = nas_kd.search(
        net, teacher, data, tables, engine="gates", max_macs="60%", gate_epochs=1, trials=1, epochs=0, tuned=0
    )
    assert found.best in net.space and net.space.cost(found.best, **SHAPE).macs <= 0.6 * teacher.macs


def test_a_plan_of_too_many_outputs_is_refused() -> None:
    plan = CutPlan(("a",), {}, {}, {}, {"a": 2}).to_dict()
    assert CutPlan.from_dict(plan).more == {"a": 2}
    with pytest.raises(ValueError, match="more"):
        CutPlan.from_dict(plan | {"more": {"a": 10**12}})
    assert "more" not in CutPlan((), {}, {}).to_dict()


class Reads(Net):
    """Reads the second output too."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x, inside, _ = block(x)
            x = x + 0.0 * inside.mean()
        return self.fc(x.mean((2, 3)))


class ReadsInTraining(Net):
    """Reads the second output where it is trained alone, as deep supervision does."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x, inside, _ = block(x)
            if self.training:
                x = x + 0.0 * inside.mean()
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize("kind", [Reads, ReadsInTraining])
def test_blocks_whose_other_outputs_are_read_are_no_units(kind: type[Net]) -> None:
    torch.manual_seed(0)
    network = kind()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    space = nas_kd.teacher_space(nas_kd.load_teacher(network), resolution=8)
    assert len(space.derived.units) == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_guidance_reads_the_first(net: TeacherSupernet, teacher: Teacher, data: Data) -> None:
    tables = nas_kd.rate_units(net, teacher, data, images=32)
    found = nas_kd.search(
        net, teacher, data, tables, objectives=["p_tg", "macs"], max_macs="60%", trials=2, epochs=0, tuned=0
    )
    assert found.frame()["p_tg"].notna().any()
