"""Input size as a dimension of a teacher's space: the teacher itself at a lower one is an arch too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from derived_teachers import make

import nas_kd
from nas_kd.data import Data, load_data
from nas_kd.errors import SettingError
from nas_kd.nn import at_resolution
from nas_kd.teacher import Teacher


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data("digits", subset=600, rate=0.2, select=0.2)


@pytest.mark.parametrize("name", ["cifar_resnet20", "efficientnet_lite0"])
def test_archs_have_sizes_and_costs_of_their_own(name: str) -> None:
    network, size = make(name)
    space = nas_kd.teacher_space(Teacher(network, name, num_classes=10), resolution=size, resolutions=(size // 2,))
    assert space.resolutions == (size // 2, size)
    archs = [space.largest(), *(space.sample(seed) for seed in range(30))]
    assert archs[0].resolution == size
    assert {arch.resolution for arch in archs} == {size // 2, size}
    assert space.decode(space.encode(archs)) == archs
    assert [nas_kd.Arch.from_dict(arch.to_dict()) for arch in archs] == archs
    net = nas_kd.Supernet(space).eval()
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        assert torch.equal(net(x, archs[0], norm=space.norm), network(x))
        lower = replace(archs[0], resolution=size // 2)
        small = at_resolution(x, size // 2)
        assert torch.equal(net(small, lower, norm=space.norm), network(small))
    costs = [space.cost(arch, num_classes=10) for arch in (archs[0], lower)]
    assert costs[0].params == costs[1].params
    assert 0.2 < costs[1].macs / costs[0].macs < 0.3
    table = space.costs(space.encode(archs), num_classes=10)
    assert [tuple(row) for row in table.to_numpy()] == [space.cost(arch, num_classes=10) for arch in archs]


def test_a_teacher_of_one_size_is_refused_others() -> None:
    network, size = make("vit_tiny_patch16_224")
    with pytest.raises(SettingError, match=r"resolution=16: expected input sizes that VisionTransformer takes"):
        nas_kd.teacher_space(Teacher(network, "vit", num_classes=10), resolution=size, resolutions=(size // 2,))


def test_units_are_rated_at_any_size_and_students_are_trained_at_theirs(digits: Data, tmp_path: Path) -> None:
    teacher = nas_kd.train_teacher("cifar_resnet8", digits, epochs=2, batch_size=32, lr=0.1)
    space = nas_kd.teacher_space(teacher, digits, resolutions=(6,))
    net = nas_kd.Supernet(space)
    fronts = {}
    for size in (6, 8):
        tables = nas_kd.rate_units(net, teacher, digits, score="replace_one", images=64, resolution=size)
        fronts[size] = nas_kd.exact_front(tables, budget="macs")
    assert fronts[8]["score"].iloc[-1] == 0.0
    assert fronts[6]["score"].iloc[-1] > 0.0  # what the teacher itself loses at the lower size
    arch = replace(space.sample(1), resolution=6)
    settings = {"epochs": 1, "batch_size": 32, "warmup_epochs": 0.1}
    student = nas_kd.retrain(
        arch, teacher, digits, space=space, supernet=net, run=tmp_path / "run", method="kd", lr=0.02, **settings
    )
    loaded = nas_kd.load_student(tmp_path / "run" / "retrain" / arch.key / "seed_0" / "student")
    assert loaded.info["resolution"] == 6
    x = at_resolution(next(iter(digits.test.clean(32))).x, 6)
    with torch.no_grad():
        assert torch.allclose(loaded(x), student(x), atol=1e-5)
    with pytest.raises(SettingError, match=r"data\.resolution=5: expected one of"):
        nas_kd.rate_units(net, teacher, digits, resolution=5)
