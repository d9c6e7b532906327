"""Repair of one cut network: every unit learns alone, from what the network itself feeds it."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nas_kd
from nas_kd.data import Data, load_data
from nas_kd.derive.calling import unit_features
from nas_kd.derive.supernet import TeacherSupernet
from nas_kd.derive.units import Unit
from nas_kd.errors import SettingError
from nas_kd.space import Arch
from nas_kd.teacher import Teacher
from nas_kd.teacher.cifar_resnet import cifar_resnet14
from nas_kd.train.repair import noise_to_signal
from nas_kd.train.repair_student import learning, only_units, repair_student, taught_units
from nas_kd.train.start import starting_network

SHORT: dict[str, Any] = {"batch_size": 32, "lr": 0.003, "student_epochs": 2}
Made = tuple[Teacher, TeacherSupernet, Data]


@pytest.fixture(scope="module")
def made() -> Made:
    data = load_data("digits", subset=400, rate=0.2, select=0.2)
    torch.manual_seed(0)
    teacher = nas_kd.load_teacher("cifar_resnet14", num_classes=10, in_chans=1, mean=data.mean, std=data.std)
    nas_kd.calibrate(teacher.network, [batch.x for batch in data.train.clean(64)])
    teacher.bind(data)
    space = nas_kd.teacher_space(teacher, data)
    return teacher, cast(TeacherSupernet, nas_kd.Supernet(space)), data


def small(net: TeacherSupernet) -> Arch:
    return cast(Arch, net.space.smallest())


class Chain(nn.Module):
    """Two units with a layer after each that changes its input in place."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(3, 4)
        self.two = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(self.two(F.relu_(self.one(x))))


def test_each_unit_has_the_gradient_of_its_own_error_alone() -> None:
    torch.manual_seed(0)
    net = Chain().double()
    units = [Unit(path, (), False, (), ()) for path in ("one", "two")]
    x = torch.randn(5, 3, dtype=torch.float64)
    wanted = [torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)]
    plain = deepcopy(net)
    with learning(net, units, wanted) as losses:
        answer = net(x)
    assert torch.equal(answer, plain(x)) and not net.one._forward_hooks
    first = plain.one(x)
    second = plain.two(first.detach().relu())
    for number, (module, own, out) in enumerate(((net.one, plain.one, first), (net.two, plain.two, second))):
        loss = ((out - wanted[number]) ** 2).mean() / wanted[number].var()
        assert losses[number].item() == pytest.approx(loss.item(), rel=1e-6)  # float() of the loss
        grads = torch.autograd.grad(loss, list(own.parameters()))
        for parameter, grad in zip(module.parameters(), grads, strict=True):
            assert parameter.grad is not None
            assert torch.allclose(parameter.grad, grad, rtol=1e-5)


class Fed(nn.Module):
    """A layer outside that feeds two units."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(3, 3)
        self.one = nn.Linear(3, 3)
        self.two = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.one(x) + self.two(x)


def test_a_layer_that_feeds_several_units_does_not_learn() -> None:
    net = Fed()
    units = [Unit(path, (), False, (), ()) for path in ("one", "two")]
    with only_units(net, units) as modules, learning(net, units, [torch.randn(5, 3)] * 2) as losses:
        net(torch.randn(5, 3))
    assert modules == [net.one, net.two] and len(losses) == 2
    assert net.one.weight.grad is not None and net.two.weight.grad is not None
    assert net.stem.weight.grad is None and all(p.requires_grad for p in net.parameters())


def test_a_densenet_whose_features_feed_all_later_layers() -> None:
    data = load_data("digits", subset=150, rate=0.2, select=0.2)
    torch.manual_seed(0)
    network = timm.create_model("densenet121", growth_rate=4, block_config=(2, 2), in_chans=1, num_classes=10)
    teacher = nas_kd.load_teacher(network, num_classes=10, in_chans=1, mean=data.mean, std=data.std)
    nas_kd.calibrate(teacher.network, [batch.x for batch in data.train.clean(64)])
    net = cast(TeacherSupernet, nas_kd.Supernet(nas_kd.teacher_space(teacher.bind(data), data)))
    student = repair_student(net, net.space.largest(), teacher, data, **SHORT | {"student_epochs": 1})
    assert student(torch.zeros(2, 1, 8, 8)).isfinite().all()


def test_units_come_nearer_to_the_teachers_and_the_supernet_stays(made: Made) -> None:
    teacher, net, data = made
    arch = small(net)
    before = deepcopy(net.state_dict())
    start = starting_network(arch, net.space, data, 0, net).eval()
    student = repair_student(net, arch, teacher, data, **SHORT)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert not student.training and type(student) is type(teacher.network)
    x = torch.cat([batch.x for batch in data.rate.clean(64)])
    units = net.cuts.units
    wanted, _ = unit_features(teacher.network, units, teacher.normalised(x))
    own = [unit_features(network, units, x)[0] for network in (start, student)]
    learns = taught_units(start, units, teacher, data)
    assert learns
    errors = [[noise_to_signal(pairs[i][1], wanted[i][1]).item() for i in learns] for pairs in own]
    assert sum(errors[1]) < 0.9 * sum(errors[0])  # 0.753, sd 0.025, over five seeds of data, teacher and repair


def test_layers_outside_of_units_stay(made: Made) -> None:
    teacher, net, data = made
    student = repair_student(net, small(net), teacher, data, **SHORT).state_dict()
    paths = tuple(f"{unit.path}." for unit in net.cuts.units)
    outside = {name for name, _ in teacher.network.named_parameters() if not name.startswith(paths)}
    assert outside
    assert all(torch.equal(student[name], teacher.network.state_dict()[name]) for name in outside)


def test_the_same_call_reads_what_is_done(made: Made, tmp_path: Path) -> None:
    teacher, net, data = made
    arch = small(net)
    first = repair_student(net, arch, teacher, data, run=tmp_path, **SHORT)
    weights = tmp_path / "retrain" / arch.key / "repaired" / "weights.safetensors"
    written = weights.stat().st_mtime_ns
    again = repair_student(net, arch, teacher, data, run=tmp_path, **SHORT)
    assert weights.stat().st_mtime_ns == written
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, first.state_dict()[name])
    begun = starting_network(arch, net.space, data, 0, weights)
    assert all(torch.equal(tensor, first.state_dict()[name]) for name, tensor in begun.state_dict().items())
    with pytest.raises(SettingError, match="repair.lr"):
        repair_student(net, arch, teacher, data, run=tmp_path, **SHORT | {"lr": 0.1})


def test_a_student_of_other_images_is_left_alone(made: Made) -> None:
    teacher, _, data = made
    space = nas_kd.teacher_space(teacher, data, resolutions=(6,))
    net = cast(TeacherSupernet, nas_kd.Supernet(space))
    arch = next(arch for arch in map(space.sample, range(100)) if arch.resolution == 6)
    begun = starting_network(arch, space, data, 0, net).state_dict()
    found = repair_student(net, arch, teacher, data, **SHORT).state_dict()
    assert all(torch.equal(tensor, begun[name]) for name, tensor in found.items())


def test_no_passes_are_refused(made: Made) -> None:
    teacher, net, data = made
    with pytest.raises(SettingError, match=r"repair.student_epochs=0.*student_epochs=2"):
        repair_student(net, small(net), teacher, data)


def test_units_of_a_cut_stream_have_nothing_to_compare_with() -> None:
    data = load_data("digits", subset=200, rate=0.2, select=0.2)
    torch.manual_seed(0)
    network = cifar_resnet14(num_classes=10, in_chans=1)
    teacher = nas_kd.load_teacher(network, num_classes=10, in_chans=1, mean=data.mean, std=data.std)
    nas_kd.calibrate(teacher.network, [batch.x for batch in data.train.clean(64)])
    teacher.bind(data)
    space = nas_kd.teacher_space(teacher, data, widths=(0.5, 1.0), residual=True)
    net = cast(TeacherSupernet, nas_kd.Supernet(space))
    narrow = starting_network(space.smallest(), space, data, 0, net)
    assert taught_units(narrow, net.cuts.units, teacher, data) == []
    whole = starting_network(space.largest(), space, data, 0, net)
    assert taught_units(whole, net.cuts.units, teacher, data) == list(range(len(net.cuts.units)))


def test_a_repair_that_diverges_names_its_setting(made: Made) -> None:
    teacher, net, data = made
    with pytest.raises(FloatingPointError, match=r"lower repair\.lr "):
        repair_student(net, small(net), teacher, data, **SHORT | {"lr": 1e30})
