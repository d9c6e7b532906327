"""The rule that pairs student stages with teacher layers."""

from __future__ import annotations

import pytest
import torch
from toys import Sizes

import nas_kd
from nas_kd.errors import SettingError
from nas_kd.teacher import Layer, choose_taps, describe_taps, grow_to, load_teacher, pool_to

# ResNet-56: nine blocks at each of 32, 16 and 8 px
RESNET56 = [Layer(f"layer{s}.{i}", 8 << s, 64 >> s, True) for s in (1, 2, 3) for i in range(9)]


def paths(sizes: list[int], layers: list[Layer] = RESNET56) -> list[str]:
    return [tap.path for tap in choose_taps(layers, sizes)]


def test_as_many_resolutions_as_stages_take_their_ends() -> None:
    assert paths([16, 8, 4]) == ["layer1.8", "layer2.8", "layer3.8"]


def test_otherwise_equal_shares_of_depth() -> None:
    # the ends of 27 layers in five shares: 5.4, 10.8, 16.2, 21.6, 27
    assert paths([16, 16, 8, 8, 4]) == ["layer1.4", "layer2.1", "layer2.6", "layer3.3", "layer3.8"]
    assert paths([4]) == ["layer3.8"]


def test_a_smaller_map_moves_the_tap_earlier_and_keeps_the_order() -> None:
    assert paths([32, 32, 32]) == ["layer1.6", "layer1.7", "layer1.8"]
    assert paths([32, 32, 16, 8, 8]) == ["layer1.4", "layer1.8", "layer2.6", "layer3.3", "layer3.8"]
    for sizes in ([32] * 9, [16] * 18, [8] * 27):
        assert len(set(paths(sizes))) == len(sizes)


def test_the_pairs_of_shipped_spaces_with_resnet56_stay() -> None:
    assert paths([16, 8, 4]) == ["layer1.8", "layer2.8", "layer3.8"]  # resnet_cifar
    mobilenet_cifar = ["layer1.4", "layer2.1", "layer2.6", "layer3.3", "layer3.8"]
    assert paths([32, 16, 8, 8, 4]) == mobilenet_cifar
    assert paths([8, 8, 8, 8]) == ["layer1.6", "layer2.4", "layer3.1", "layer3.8"]  # vit_cifar


def test_too_few_layers_share_a_tap() -> None:
    two = [Layer("a", 8, 8), Layer("b", 8, 4)]
    assert paths([4, 4, 4], two) == ["a", "a", "b"]
    assert paths([8, 8, 4], two) == ["a", "a", "b"]


def test_where_no_layer_is_large_enough_the_largest_maps_are_compared_at_their_own_size() -> None:
    taps = choose_taps(RESNET56, [64, 64, 8])
    assert [(tap.path, tap.size, tap.compared) for tap in taps] == [
        ("layer1.7", 32, 32),
        ("layer1.8", 32, 32),
        ("layer3.8", 8, 8),
    ]
    lines = describe_taps(taps)
    assert lines[0] == (
        "student stage 1 (64 px) learns from teacher layer1.7 "
        "(16 channels, 32 px, to which the student's output is averaged)"
    )
    assert lines[2].endswith("layer3.8 (64 channels, 8 px); its input, layer1.8, is resized from 32 to 64 px")
    tokens = [Layer(f"blocks.{i}", 192, 14) for i in range(12)]  # all of one size: equal shares of the depth
    assert paths([112, 56, 28, 14, 14, 7], tokens) == [f"blocks.{i}" for i in (1, 3, 5, 7, 9, 11)]


def test_the_stem_teaches_where_blocks_are_too_small() -> None:
    stem = [Layer("conv1", 64, 16), Layer("act1", 64, 16), Layer("maxpool", 64, 8)]
    blocks = [Layer(f"layer{s}.{i}", 64, 16 >> s) for s in (1, 2, 3, 4) for i in (0, 1)]
    assert [tap.path for tap in choose_taps(blocks, [16, 8, 4], stem)] == ["act1", "layer1.1", "layer2.1"]
    assert [tap.path for tap in choose_taps(blocks, [16, 16, 4], stem)] == ["conv1", "act1", "layer2.1"]
    # none has 32 px: the stem's 16 are the largest
    assert [tap.path for tap in choose_taps(blocks, [32, 8, 4], stem)] == ["act1", "layer1.1", "layer2.1"]


def test_too_few_large_maps_leave_later_stages_their_own() -> None:
    stem = [Layer("norm", 64, 112), Layer("pool", 64, 56)]
    blocks = [Layer(f"blocks.{i}", 192, 7) for i in range(12)]
    found = choose_taps(blocks, [112, 56, 28, 14, 14, 7], stem)
    assert [tap.path for tap in found] == ["norm", "pool", "blocks.5", "blocks.7", "blocks.9", "blocks.11"]
    assert [tap.compared for tap in found] == [112, 56, 7, 7, 7, 7]


# EfficientNet-Lite0 at 224 px: seven stages of 1, 2, 2, 3, 3, 4, 1 blocks
LITE = [
    Layer(f"blocks.{s}.{i}", 16, size)
    for s, (count, size) in enumerate([(1, 112), (2, 56), (2, 28), (3, 14), (3, 14), (4, 7), (1, 7)])
    for i in range(count)
]


def test_the_teachers_own_stages_come_first() -> None:
    ends = ["blocks.0.0", "blocks.1.1", "blocks.2.1", "blocks.3.2", "blocks.4.2", "blocks.5.3", "blocks.6.0"]
    assert paths([112, 56, 28, 14, 14, 7, 7], LITE) == ends
    # stages that would share a tap get ends, too: equal shares of the depth would pair the fourth with blocks.4.1
    assert paths([112, 56, 28, 14, 14, 7], LITE) == [*ends[:5], "blocks.6.0"]
    assert paths([112, 56, 28, 14, 7], LITE) == ["blocks.0.0", "blocks.1.1", "blocks.2.1", "blocks.4.2", "blocks.6.0"]


def test_half_way_where_no_stage_ends() -> None:
    resnet50 = [Layer(f"layer{s}.{i}", 64, 112 >> s) for s, n in ((1, 3), (2, 4), (3, 6), (4, 3)) for i in range(n)]
    assert paths([14, 14, 14, 14], resnet50) == ["layer1.2", "layer2.3", "layer3.2", "layer3.5"]


@pytest.mark.parametrize("name", ["resnet_cifar", "mobilenet_cifar"])
def test_spaces_of_the_project_against_resnet56(name: str) -> None:
    space = nas_kd.load_space(name)
    teacher = load_teacher("cifar_resnet56")
    taps = teacher.match(space, 32)
    sizes = space.stage_sizes(32)
    assert len(taps) == len(sizes) and [tap.student_size for tap in taps] == sizes
    assert all(tap.size >= tap.student_size and tap.pre for tap in taps)
    order = [layer.path for layer in RESNET56]
    places = [order.index(tap.path) for tap in taps]
    assert places == sorted(set(places)) and places[-1] == 26
    out = teacher.forward_stages(torch.zeros(1, 3, 32, 32))
    for tap, post in zip(taps, out.stages, strict=True):
        assert tuple(post.shape) == (1, tap.channels, tap.size, tap.size)
        assert pool_to(post, tap.student_size).shape[2:] == (tap.student_size, tap.student_size)


def test_named_layers_override() -> None:
    names = ["layer1.2", "layer2.2", "layer3.2"]
    teacher = load_teacher("cifar_resnet56", stages=names)
    assert [tap.path for tap in teacher.match(Sizes(16, 8, 4), 32)] == names
    with pytest.raises(SettingError, match="4 layers, one per stage"):
        teacher.match(Sizes(16, 8, 8, 4), 32)
    smaller = teacher.match(Sizes(32, 16, 32), 32)
    assert [(tap.size, tap.compared) for tap in smaller] == [(32, 32), (16, 16), (8, 8)]
    with pytest.raises(SettingError, match="from input to output"):
        load_teacher("cifar_resnet56", stages=names[::-1]).match(Sizes(4, 4, 4), 32)
    with pytest.raises(SettingError, match="layer4.2.*did you mean 'layer"):
        load_teacher("cifar_resnet56", stages=["layer4.2"])
    with pytest.raises(SettingError, match="with a feature map as output"):
        load_teacher("cifar_resnet56", stages=["linear"]).match(Sizes(4), 32)


def test_pooling_only_shrinks_and_is_the_mean() -> None:
    x = torch.randn(2, 3, 8, 8)
    assert pool_to(x, 8) is x and pool_to(x, 16) is x
    expected = x.reshape(2, 3, 4, 2, 4, 2).mean((3, 5))
    torch.testing.assert_close(pool_to(x, 4), expected)


def test_resizing_up_only_enlarges() -> None:
    x = torch.randn(2, 3, 4, 4)
    assert grow_to(x, 4) is x and grow_to(x, 2) is x
    grown = grow_to(x, 8)
    assert grown.shape == (2, 3, 8, 8)
    # every pixel lies a quarter of the way to its neighbours: 9, 3, 3 and 1 sixteenths
    expected = (9 * x[..., 1, 1] + 3 * x[..., 1, 2] + 3 * x[..., 2, 1] + x[..., 2, 2]) / 16
    torch.testing.assert_close(grown[..., 3, 3], expected)


def test_pairs_in_words() -> None:
    lines = describe_taps(choose_taps(RESNET56, [16, 16, 8]))
    assert lines[0] == ("student stage 1 (16 px) learns from teacher layer1.8 (16 channels, 32 px, averaged to 16 px)")
    assert lines[1] == "student stage 2 (16 px) learns from teacher layer2.8 (32 channels, 16 px)"
