"""The teacher as a space: archs, costs, codes and weights as those of every other space, and students that load."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from derived_teachers import make
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import nas_kd
from nas_kd.data import Data, load_data
from nas_kd.derive.network import Choice
from nas_kd.derive.space import TeacherSpace
from nas_kd.derive.supernet import TeacherSupernet
from nas_kd.errors import SettingError
from nas_kd.rate.units import rate_units
from nas_kd.teacher import Teacher, cifar_resnet8
from nas_kd.train import weights_hash

NAMES = ("cifar_resnet20", "efficientnet_lite0", "resnext50_32x4d", "vit_tiny_patch16_224", "own")


class Counting(TorchDispatchMode):
    """Counts the multiply-adds of convolutions and linear layers that run; products of attention have no weights."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution.default:
            self.macs += out.numel() * args[1][0].numel()
        elif func in (torch.ops.aten.addmm.default, torch.ops.aten.mm.default):
            self.macs += out.numel() * args[-1].shape[0]
        return out


def independent(network: nn.Module, image: Tensor) -> tuple[int, int]:
    """Count a network by what runs, and its parameters by their sizes."""
    with torch.no_grad(), Counting() as counting:
        network(image)
    return counting.macs, sum(p.numel() for p in network.parameters())


@pytest.fixture(scope="module", params=NAMES)
def made(request: pytest.FixtureRequest) -> tuple[Teacher, TeacherSpace, int]:
    network, size = make(request.param)
    teacher = Teacher(network, request.param, num_classes=10)
    return teacher, nas_kd.teacher_space(teacher, resolution=size), size


def test_the_largest_subnet_is_the_teacher(made: tuple[Teacher, TeacherSpace, int]) -> None:
    teacher, space, size = made
    net = nas_kd.Supernet(space).eval()
    assert isinstance(net, TeacherSupernet)
    images = torch.randn(3, 3, size, size)
    with torch.no_grad():
        assert torch.equal(net(images, space.largest(), norm=space.norm), teacher(images))
    assert space.cost(space.largest(), num_classes=10).params == teacher.params


def test_costs_are_those_of_the_extracted_network(made: tuple[Teacher, TeacherSpace, int]) -> None:
    _, space, size = made
    net = nas_kd.Supernet(space).eval()
    image = torch.randn(1, 3, size, size)
    for seed in range(3):
        arch = space.sample(seed)
        assert space.cost(arch, num_classes=10) == independent(net.extract(arch), image)


def test_costs_of_200_archs_are_sums_over_the_shapes_of_their_twins(made: tuple[Teacher, TeacherSpace, int]) -> None:
    teacher, space, size = made
    net = nas_kd.Supernet(space).eval()
    times = {}
    layers = [m for m in teacher.network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    handles = [
        m.register_forward_hook(lambda m, _, out: times.__setitem__(m, out.numel() // len(m.weight))) for m in layers
    ]
    teacher(torch.randn(1, 3, size, size))
    for handle in handles:
        handle.remove()

    def total(module: nn.Module, like: nn.Module) -> tuple[int, int]:
        pairs = zip(like.named_modules(), module.named_modules(), strict=True)
        macs = sum(times[own] * cut.weight.numel() for (_, own), (_, cut) in pairs if own in times)
        return macs, sum(p.numel() for p in module.parameters())

    units = [teacher.network.get_submodule(unit.path) for unit in net.cuts.units]
    whole = [total(unit, unit) for unit in units]
    everything = total(teacher.network, teacher.network)
    rest = [everything[i] - sum(each[i] for each in whole) for i in range(2)]

    @cache
    def counted(index: int, choice: Choice) -> tuple[int, int]:
        return (0, 0) if choice is None else total(net.cuts.twin(index, choice).module, units[index])

    archs = [space.sample(seed) for seed in range(200)]
    table = space.costs(space.encode(archs), num_classes=10)
    for number, arch in enumerate(archs):
        parts = [counted(index, choice) for index, choice in enumerate(net.choices(arch))]
        want = tuple(rest[i] + sum(part[i] for part in parts) for i in range(2))
        assert tuple(table.iloc[number]) == want, arch.label
        assert number >= 20 or space.cost(arch, num_classes=10) == want


def test_archs_are_values_and_codes(made: tuple[Teacher, TeacherSpace, int]) -> None:
    _, space, _ = made
    archs = [space.sample(seed) for seed in range(20)] + [space.largest(), space.smallest()]
    assert space.decode(space.encode(archs)) == archs
    assert [nas_kd.Arch.from_dict(arch.to_dict()) for arch in archs] == archs
    with pytest.raises(SettingError):
        space.cost(archs[0], resolution=space.resolution + 1, num_classes=10)


def test_another_teacher_makes_another_space() -> None:
    network, size = make("cifar_resnet20")
    one = nas_kd.teacher_space(Teacher(network, "one", num_classes=10), resolution=size)
    again = nas_kd.teacher_space(Teacher(network, "one", num_classes=10), resolution=size)
    assert one.hash == again.hash
    with torch.no_grad():
        next(network.parameters()).add_(1e-3)
    assert nas_kd.teacher_space(Teacher(network, "one", num_classes=10), resolution=size).hash != one.hash


def test_calibration_is_that_of_the_extracted_network(made: tuple[Teacher, TeacherSpace, int]) -> None:
    _, space, size = made
    net = nas_kd.Supernet(space).eval()
    batches = [torch.randn(4, 3, size, size) for _ in range(2)]
    arch = space.sample(1)
    (norm,) = nas_kd.calibrate(net, batches, archs=[arch])
    student = net.extract(arch)
    nas_kd.calibrate(student, batches)
    with torch.no_grad():
        assert torch.equal(net(batches[0], arch, norm), student.eval()(batches[0]))


@pytest.mark.parametrize("name", ["cifar_resnet20", "efficientnet_lite0", "vit_tiny_patch16_224"])
def test_a_cut_student_loads_from_its_folder(name: str, tmp_path: Path) -> None:
    network, size = make(name)
    space = nas_kd.teacher_space(Teacher(network, name, num_classes=10), resolution=size)
    net = nas_kd.Supernet(space).eval()
    arch = space.sample(4)
    images = torch.randn(2, 3, size, size)
    (norm,) = nas_kd.calibrate(net, [images], archs=[arch])
    student = net.extract(arch, norm)
    own = name == "cifar_resnet20"
    factory = "nas_kd.teacher.cifar_resnet:CifarResNet" if own else f"timm:{name}"
    sized = {"img_size": size} if name.startswith("vit") else {}
    info = {
        "factory": factory,
        "factory_kwargs": {"depth": 20} if own else {"num_classes": 10, **sized},
        "cut": student.cut_plan.to_dict(),  # type: ignore[union-attr]
    }
    loaded = nas_kd.load_student(nas_kd.save_student(student, tmp_path / "student", info=info))
    loaded = loaded.to(memory_format=torch.channels_last)  # as the teacher is: the same kernels
    assert type(loaded) is type(network)
    with torch.no_grad():
        assert torch.equal(loaded(images), student(images))
    spoilt = info | {"cut": {"left_out": ["nowhere"], "shapes": {}, "numbers": {}}}
    with pytest.raises(SettingError, match="expected a cut of the network that its factory builds"):
        nas_kd.save_student(student, tmp_path / "spoilt", info=spoilt)


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data("digits", subset=600, rate=0.2, select=0.2)


def test_images_of_another_normalisation_are_refused(digits: Data) -> None:
    network = cifar_resnet8(in_chans=1)
    teacher = Teacher(network, "other", num_classes=10, in_chans=1, mean=(0.4,), std=(0.2,))
    with pytest.raises(SettingError, match=r"data\.mean.*expected data normalised as the teacher's"):
        nas_kd.teacher_space(teacher, digits)
    space = nas_kd.teacher_space(teacher, digits.normalised((0.4,), (0.2,)))
    assert space.size > 1


def test_scores_of_units_are_those_of_whole_networks(digits: Data) -> None:
    """Replaying what comes before a unit changes nothing: each score is that of a network put together by itself."""
    torch.manual_seed(0)
    teacher = nas_kd.train_teacher("cifar_resnet8", digits, epochs=2, batch_size=32, lr=0.1)
    space = nas_kd.teacher_space(teacher, digits)
    net = nas_kd.Supernet(space)
    before = weights_hash(net)
    tables = rate_units(net, teacher, digits, images=64)
    nas_kd.calibrate(net, digits.train.clean(64, limit=64), archs=[net.space.smallest()])
    assert weights_hash(net) == before  # the statistics of a batch are no weights
    assert len(tables) == len(space.stages)
    x = teacher.normalised(next(iter(digits.rate.clean(64, limit=64))).x)
    whole = [net.cuts.whole(index) for index in range(len(tables))]
    net.train()
    with torch.no_grad():
        target = net.cuts(x, whole).log_softmax(1)
        for index, table in enumerate(tables):
            assert table["score"].iloc[-1] == 0.0
            for row in table.itertuples():
                candidate = space.stages[index].candidates()[row.candidate]
                choice = tuple(candidate.layers[0]) if candidate.layers else None
                got = net.cuts(x, [*whole[:index], choice, *whole[index + 1 :]]).log_softmax(1)
                kl = (target.exp() * (target - got)).sum(1).mean()
                assert row.score == pytest.approx(float(kl), rel=1e-3, abs=1e-6)
    front = nas_kd.exact_front(tables, budget="macs")
    assert front["macs"].iloc[-1] == space.cost(space.largest(), in_chans=1, num_classes=10).macs
    assert front["score"].iloc[-1] == 0.0


def test_a_student_of_the_teachers_space_is_retrained_and_handed_over(digits: Data, tmp_path: Path) -> None:
    teacher = nas_kd.train_teacher("cifar_resnet8", digits, epochs=3, batch_size=32, lr=0.1)
    space = nas_kd.teacher_space(teacher, digits)
    net = nas_kd.Supernet(space)
    arch = space.sample(3)
    trained = {"epochs": 1, "batch_size": 32, "lr": 0.02, "warmup_epochs": 0.1, "space": space}
    student = nas_kd.retrain(arch, teacher, digits, supernet=net, run=tmp_path / "run", method="kd", **trained)
    folder = tmp_path / "run" / "retrain" / arch.key / "seed_0" / "student"
    loaded = nas_kd.load_student(folder)
    assert type(loaded) is type(teacher.network)
    x = next(iter(digits.test.clean(32))).x
    with torch.no_grad():
        assert torch.allclose(loaded(x), student(x), atol=1e-5)  # in another memory format
