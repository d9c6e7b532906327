"""The rule that pairs student stages with teacher layers."""

from __future__ import annotations

import pytest
import torch
from toys import Sizes

import nas_kd
from nas_kd.errors import SettingError
from nas_kd.teacher import Layer, choose_taps, describe_taps, load_teacher, pool_to

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


def test_too_few_layers_share_a_tap() -> None:
    two = [Layer("a", 8, 8), Layer("b", 8, 4)]
    assert paths([4, 4, 4], two) == ["a", "a", "b"]
    assert paths([8, 8, 4], two) == ["a", "a", "b"]


def test_no_layer_large_enough_is_an_error() -> None:
    with pytest.raises(SettingError, match=r"teacher.stages\[0\].*32 px.*at least 64 px"):
        choose_taps(RESNET56, [64, 8, 4])


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
    with pytest.raises(SettingError, match="at least 32 px .the map of layer3.2"):
        teacher.match(Sizes(32, 16, 32), 32)
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


def test_pairs_in_words() -> None:
    lines = describe_taps(choose_taps(RESNET56, [16, 16, 8]))
    assert lines[0] == ("student stage 1 (16 px) learns from teacher layer1.8 (16 channels, 32 px, averaged to 16 px)")
    assert lines[1] == "student stage 2 (16 px) learns from teacher layer2.8 (32 channels, 16 px)"
