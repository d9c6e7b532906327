"""A student of a space is a teacher as any other: what is cut from it loads from its folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import nas_kd
from nas_kd.blocks import kinds
from nas_kd.derive.whole import WholeNet, whole_of
from nas_kd.errors import SettingError
from nas_kd.nn.static import StaticNet


@pytest.mark.parametrize("name", ["digits", "vit_cifar", "mobilenet_cifar", "ofa_resnet50d"])
def test_the_whole_network_is_the_student(name: str) -> None:
    space = nas_kd.load_space(name)
    torch.manual_seed(0)
    student = space.build(space.smallest(), num_classes=4, in_chans=3).eval()
    whole = whole_of(student)
    assert type(whole) is WholeNet and not whole.training
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(whole(x), student(x))
    assert [tensor.shape for tensor in whole.parameters()] == [tensor.shape for tensor in student.parameters()]


def test_what_is_cut_from_a_student_loads_from_its_folder(tmp_path: Path) -> None:
    data = nas_kd.load_data("digits", subset=200, rate=0.2, select=0.2, views=1)
    space = nas_kd.load_space("digits")
    how = {"epochs": 1, "batch_size": 32, "method": "ce", "test": False}
    nas_kd.retrain(space.largest(), None, data, space=space, run=tmp_path / "first", folder="retrain/first", **how)
    teacher = nas_kd.load_teacher(tmp_path / "first/retrain/first/student")
    own = nas_kd.teacher_space(teacher, data)
    net = nas_kd.Supernet(own)
    x = torch.randn(3, 1, 8, 8)
    assert torch.equal(net.extract(own.largest(), own.norm).eval()(x), teacher(x))
    arch = own.smallest()
    run = {"run": tmp_path / "second", "folder": "retrain/second"}
    student = nas_kd.retrain(arch, teacher, data, space=own, supernet=net, **run, **how | {"method": "kd"})
    again = nas_kd.load_student(tmp_path / "second/retrain/second/student")
    torch.testing.assert_close(again.eval()(x), student.eval()(x))  # layouts in memory differ, and so last bits
    cost = own.cost(arch, resolution=8, in_chans=1, num_classes=10)
    assert sum(p.numel() for p in again.parameters()) == cost.params < sum(p.numel() for p in net.parameters())


def test_blocks_of_a_users_own_are_refused() -> None:
    space = nas_kd.load_space("digits")
    student = space.build(space.smallest(), num_classes=4, in_chans=1)
    basic = kinds()["basic"]
    mine = type("Mine", (basic,), {})
    with pytest.raises(SettingError, match=r"teacher\.model='basic'.*library's blocks.*package\.module:callable"):
        whole_of(StaticNet(student.layers_spec, kinds() | {"basic": mine}))
