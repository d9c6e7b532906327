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
from nas_kd.searcher.variables import SearchVariables
from nas_kd.teacher import Teacher, cifar_resnet8
from nas_kd.train import weights_hash

NAMES = ("cifar_resnet20", "efficientnet_lite0", "resnext50_32x4d", "vit_tiny_patch16_224", "own", "plain", "repvgg_a0")
STREAMS = (
    "cifar_resnet20",
    "efficientnet_lite0",
    "convnext_atto",
    "vit_tiny_patch16_224",
)  # with their residual streams
MADE = [*((name, False) for name in NAMES), *((name, True) for name in STREAMS)]


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


@pytest.fixture(scope="module", params=MADE, ids=lambda made: f"{made[0]}-streams" if made[1] else made[0])
def made(request: pytest.FixtureRequest) -> tuple[Teacher, TeacherSpace, int]:
    name, residual = request.param
    network, size = make(name)
    teacher = Teacher(network, name, num_classes=10)
    return teacher, nas_kd.teacher_space(teacher, resolution=size, residual=residual), size


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
        student = net.extract(arch)
        nas_kd.calibrate(student, [image.expand(2, -1, -1, -1)])
        assert space.cost(arch, num_classes=10) == independent(student, image)


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

    applied = {f"{name}.weight": times[m] for name, m in teacher.network.named_modules() if m in times}

    def summed(sizes: dict[str, int]) -> tuple[int, int]:
        return sum(number * sizes.get(name, 0) for name, number in applied.items()), sum(sizes.values())

    everything = {name: p.numel() for name, p in teacher.network.named_parameters()}

    @cache
    def twin(index: int, choice: Choice) -> tuple[str, dict[str, int]]:
        path = net.cuts.units[index].path
        module = None if choice is None else net.cuts.twin(index, choice).module
        return f"{path}.", {} if module is None else {f"{path}.{n}": p.numel() for n, p in module.named_parameters()}

    # an arch whose streams are cut is assembled anew, which takes a hundred times as long as looking up its twins
    archs = [space.sample(seed) for seed in range(40 if net.cuts.streams else 200)]
    table = space.costs(space.encode(archs), num_classes=10)
    for number, arch in enumerate(archs):
        choices = net.choices(arch)
        if net.cuts.streams:
            network, slices = net.cuts.assembled(choices)
            sizes = {name: p.numel() for name, p in [*network.named_parameters(), *slices.items()]}
        else:
            twins = [twin(index, choice) for index, choice in enumerate(choices)]
            starts = tuple(start for start, _ in twins)
            sizes = {name: count for name, count in everything.items() if not name.startswith(starts)}
            for _, part in twins:
                sizes |= part
        want = summed(sizes)
        assert tuple(table.iloc[number]) == want, arch.label
        assert number >= 20 or space.cost(arch, num_classes=10) == want


def test_archs_are_values_and_codes(made: tuple[Teacher, TeacherSpace, int]) -> None:
    _, space, _ = made
    archs = [space.sample(seed) for seed in range(20)] + [space.largest(), space.smallest()]
    assert space.decode(space.encode(archs)) == archs
    assert [nas_kd.Arch.from_dict(arch.to_dict()) for arch in archs] == archs
    with pytest.raises(SettingError):
        space.cost(archs[0], resolution=space.resolution + 1, num_classes=10)


def test_archs_are_points_of_a_search(made: tuple[Teacher, TeacherSpace, int]) -> None:
    _, space, _ = made
    variables = SearchVariables(space)
    archs = [space.sample(seed) for seed in range(20)] + [space.largest(), space.smallest()]
    assert [variables.decode(variables.encode(arch)) for arch in archs] == archs


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


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("name", ["cifar_resnet20", "efficientnet_lite0", "vit_tiny_patch16_224"])
def test_a_cut_student_loads_from_its_folder(name: str, residual: bool, tmp_path: Path) -> None:
    network, size = make(name)
    space = nas_kd.teacher_space(Teacher(network, name, num_classes=10), resolution=size, residual=residual)
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


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("name", ["cifar_resnet20", "efficientnet_lite0", "vit_tiny_patch16_224"])
def test_what_is_cut_twice_loads_from_its_folder(name: str, residual: bool, tmp_path: Path) -> None:
    network, size = make(name)
    images = torch.randn(2, 3, size, size)
    teacher = Teacher(network, name, num_classes=10)
    for seed in (4, 3):
        space = nas_kd.teacher_space(teacher, resolution=size, residual=residual)
        net = nas_kd.Supernet(space).eval()
        arch = space.sample(seed)
        (norm,) = nas_kd.calibrate(net, [images], archs=[arch])
        student = net.extract(arch, norm).eval()
        teacher = Teacher(student, f"{name}-cut", num_classes=10)
        if seed == 4:
            begun = student.cut_plan
    own = name == "cifar_resnet20"
    sized = {"img_size": size} if name.startswith("vit") else {}
    plan = student.cut_plan
    assert plan != begun and set(begun.left_out) <= set(plan.left_out)  # type: ignore[union-attr,arg-type]
    info = {
        "factory": "nas_kd.teacher.cifar_resnet:CifarResNet" if own else f"timm:{name}",
        "factory_kwargs": {"depth": 20} if own else {"num_classes": 10, **sized},
        "cut": plan.to_dict(),  # type: ignore[union-attr]
    }
    folder = nas_kd.save_student(student, tmp_path / "student", info=info)
    for loaded in (nas_kd.load_student(folder), nas_kd.load_teacher(folder, num_classes=10).network):
        with torch.no_grad():
            assert torch.equal(loaded.to(memory_format=torch.channels_last)(images), student(images))
        assert loaded.cut_plan == plan  # so that it can be cut a third time


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


@pytest.mark.parametrize("residual", [False, True])
def test_scores_of_units_are_those_of_whole_networks(digits: Data, residual: bool) -> None:
    """Replaying what comes before a unit changes nothing: each score is that of a network put together by itself."""
    torch.manual_seed(0)
    teacher = nas_kd.train_teacher("cifar_resnet8", digits, epochs=2, batch_size=32, lr=0.1)
    space = nas_kd.teacher_space(teacher, digits, residual=residual)
    net = nas_kd.Supernet(space)
    before = weights_hash(net)
    tables = rate_units(net, teacher, digits, score="replace_one", images=64)
    nas_kd.calibrate(net, digits.train.clean(64, limit=64), archs=[net.space.smallest()])
    assert weights_hash(net) == before  # the statistics of a batch are no weights
    assert len(tables) == len(space.stages)
    x = teacher.normalised(next(iter(digits.rate.clean(64, limit=64))).x)
    whole = [net.cuts.whole(index) for index in range(len(net.cuts.units) + len(net.cuts.streams))]
    net.train()

    def alone(part: int, choice: Choice) -> float:
        with torch.no_grad():
            target = net.cuts(x, whole).log_softmax(1)
            got = net.cuts(x, [*whole[:part], choice, *whole[part + 1 :]]).log_softmax(1)
        return float((target.exp() * (target - got)).sum(1).mean())

    for index, table in enumerate(tables):
        candidates = space.stages[index].candidates()
        for row in table.itertuples():
            kl = sum(alone(*made) for made in net.choices_at(net.links[index], candidates[row.candidate]))
            assert row.score == pytest.approx(kl, rel=1e-3, abs=1e-6)
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


def test_a_budget_below_the_smallest_names_what_else_can_be_cut(digits: Data) -> None:
    teacher = Teacher(cifar_resnet8(in_chans=1), "small", num_classes=10, in_chans=1)
    shares = []
    for residual in (False, True):
        space = nas_kd.teacher_space(teacher, digits, residual=residual)
        net = nas_kd.Supernet(space)
        with pytest.raises(SettingError, match=r"search\.max_macs.*at least [\d.]+%") as caught:
            nas_kd.search(net, None, digits, max_macs="0.1%", trials=1, epochs=0)
        assert ("also cut the residual stream" in caught.value.hint) is not residual
        shares.append(float(caught.value.expected.split("at least ")[1].split("%")[0]))
    assert shares[1] < shares[0]
