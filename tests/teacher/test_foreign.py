"""Features of networks that do not return them, against timm's own and against their stages run by hand."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest
import torch
from toys import Sizes

import nas_kd
from nas_kd.errors import SettingError
from nas_kd.nn.static import StaticNet
from nas_kd.teacher import load_teacher

sys.path.insert(0, str(Path(__file__).parent))
import teacher_nets as nets  # noqa: E402

# timm name, resolution, sizes of a student, number of feature maps of forward_intermediates to compare
TIMM = [
    ("resnet18", 64, [16, 8, 4, 2]),
    ("mobilenetv3_small_100", 64, [8, 8, 4, 2, 2]),
    ("vit_tiny_patch16_224", 64, [4, 4, 2]),
    ("swin_tiny_patch4_window7_224", 64, [16, 8, 4, 2]),
]


@pytest.mark.parametrize(("name", "resolution", "sizes"), TIMM)
def test_timm_features_are_timms_own(name: str, resolution: int, sizes: list[int]) -> None:
    torch.manual_seed(0)
    teacher = load_teacher(name, num_classes=5, resolution=resolution)
    taps = teacher.match(Sizes(*sizes), resolution)
    x = torch.randn(2, 3, resolution, resolution)
    out = teacher.forward_stages(x)
    assert torch.equal(out.logits, teacher(x)) and out.logits.shape == (2, 5)
    for tap, post in zip(taps, out.stages, strict=True):
        assert tuple(post.shape) == (2, tap.channels, tap.size, tap.size)
    model = teacher._module
    with torch.no_grad():
        last, maps = model.forward_intermediates(x)
        torch.testing.assert_close(out.pooled, model.forward_head(last, pre_logits=True).flatten(1))
    compared = 0
    for post in out.stages:
        for other in maps:
            compared += other.shape == post.shape and torch.allclose(other, post, atol=1e-5)
    if name.startswith("mobilenet"):  # timm gives one map a resolution, and equal shares end elsewhere too
        assert compared >= 2
    else:
        assert compared == len(sizes)


def test_resolutions_of_a_timm_resnet_end_at_its_stages() -> None:
    teacher = load_teacher("resnet18", num_classes=5)
    taps = teacher.match(Sizes(4, 2, 2, 1), 64)
    assert [tap.path for tap in taps] == ["layer1.1", "layer2.1", "layer3.1", "layer4.1"]
    assert [tap.size for tap in taps] == [16, 8, 4, 2]


def test_features_survive_a_later_change_in_place() -> None:
    teacher = load_teacher("teacher_nets:net", in_chans=1, num_classes=6)
    taps = teacher.match(Sizes(8, 4, 2), 8)
    assert [tap.path for tap in taps] == ["blocks.0", "blocks.1", "blocks.2"]
    x = torch.randn(3, 1, 8, 8)
    out = teacher.forward_stages(x)
    model = teacher._module
    assert isinstance(model, nets.Net)
    with torch.no_grad():
        y = model.stem(x)
        for block, post in zip(model.blocks, out.stages, strict=True):
            y = block(y.clone())
            torch.testing.assert_close(post, y)
    assert (out.stages[0] < 0).any()  # after a ReLU in place there would be none
    torch.testing.assert_close(out.pooled, y.mean((2, 3)))


def test_plain_layers_of_a_network_without_blocks() -> None:
    teacher = load_teacher("teacher_nets:plain", num_classes=4)
    taps = teacher.match(Sizes(8, 4, 2), 8)
    assert [(tap.path, tap.size) for tap in taps] == [("2", 8), ("6", 4), ("10", 2)]
    assert all((f >= 0).all() for f in teacher.forward_stages(torch.randn(2, 3, 8, 8)).stages)


def test_student_networks_give_features_before_the_activation() -> None:
    space = nas_kd.load_space("resnet_cifar")
    student = space.build(space.largest(), num_classes=10, in_chans=3)
    assert isinstance(student, StaticNet)
    teacher = load_teacher(student)
    taps = teacher.match(space, 32)
    assert [tap.path for tap in taps] == [f"stages.{i}.layers.2" for i in range(3)]
    assert all(tap.pre for tap in taps)
    x = torch.randn(2, 3, 32, 32)
    out = teacher.forward_stages(x)
    with torch.no_grad():
        own = student.eval().forward_stages(x)
    for mine, theirs in zip([*out.stages, *out.pre, out.pooled], [*own.stages, *own.pre, own.pooled], strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_second_match_replaces_the_first() -> None:
    teacher = load_teacher("teacher_nets:net")
    teacher.match(Sizes(8, 4), 8)
    assert len(teacher.forward_stages(torch.zeros(1, 3, 8, 8)).stages) == 2
    teacher.match(Sizes(2), 8)
    assert len(teacher.forward_stages(torch.zeros(1, 3, 8, 8)).stages) == 1
    hooks = [len(module._forward_hooks) for module in teacher._module.modules()]
    assert sum(hooks) == 2  # one tap and the classifier


def test_features_need_taps_and_a_size_that_fits() -> None:
    teacher = load_teacher("vit_tiny_patch16_224", num_classes=5)
    with pytest.raises(SettingError, match="teacher.match"):
        teacher.forward_stages(torch.zeros(1, 3, 32, 32))
    with pytest.raises(SettingError, match=r"3 x 32 x 32.*resolution=") as error:
        teacher.match(Sizes(2), 32)
    assert "224" in str(error.value)
    with pytest.raises(SettingError, match="returns logits"):
        load_teacher(nets.Map()).match(Sizes(2), 8)


def test_a_matched_teacher_travels_to_another_process() -> None:
    teacher = load_teacher("teacher_nets:net")
    teacher.match(Sizes(8, 4), 8)
    again = pickle.loads(pickle.dumps(teacher))
    x = torch.randn(2, 3, 8, 8)
    for mine, theirs in zip(teacher.forward_stages(x).stages, again.forward_stages(x).stages, strict=True):
        assert torch.equal(mine, theirs)


def test_branches_of_a_block_are_no_layers() -> None:
    torchvision = pytest.importorskip("torchvision")
    net = torchvision.models.googlenet(num_classes=3, aux_logits=False, init_weights=False)
    layers = load_teacher(net)._dry_run(64).layers
    assert [layer.path for layer in layers if layer.size == 2] == ["inception5a", "inception5b"]


def test_blocks_count_and_not_the_stages_that_hold_them() -> None:
    layers = load_teacher("convnext_atto", num_classes=3)._dry_run(64).layers
    blocks = [f"stages.{s}.blocks.{i}" for s, n in enumerate((2, 2, 6, 2)) for i in range(n)]
    assert [layer.path for layer in layers] == blocks
