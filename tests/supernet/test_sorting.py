"""Importance sorting: the largest stays what it was, what is nested stays nested, the first channels weigh most."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from tiny_spaces import BASIC, BOTTLENECK, FAMILIES, MOBILE, VIT, full_net
from torch import Tensor

import nas_kd
from nas_kd.space import Arch, Candidate, ElasticSpace
from nas_kd.supernet import Supernet, sort_channels
from nas_kd.supernet.sorting import inner_channels
from nas_kd.train.shrinking import restricted, widened

families = pytest.mark.parametrize("space", FAMILIES, ids=lambda s: s.name)
TRANSFORMED = pytest.mark.parametrize("transform", [False, True])


def images(space: ElasticSpace) -> Tensor:
    return torch.randn(5, 3, *2 * [space.resolution], generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def outputs(net: Supernet, archs: list[Arch]) -> list[Tensor]:
    x = images(net.space)
    return [net(x, arch).detach() for arch in archs]


def close(a: list[Tensor], b: list[Tensor]) -> list[bool]:
    return [torch.allclose(one, other, rtol=1e-9, atol=1e-9) for one, other in zip(a, b, strict=True)]


@TRANSFORMED
@families
def test_the_largest_stays_what_it_was(space: ElasticSpace, transform: bool) -> None:
    net = full_net(space, kernel_transform=transform).double()
    archs = [space.largest(), space.smallest(), *(space.sample(seed) for seed in range(4))]
    before, weights = outputs(net, archs), {k: v.clone() for k, v in net.state_dict().items()}
    sort_channels(net)
    assert close(before, outputs(net, archs))[0]
    assert not close(before, outputs(net, archs))[1]  # or nothing moved
    for key, value in net.state_dict().items():  # channels moved: nothing was lost or made up
        assert torch.equal(value.flatten().sort().values, weights[key].flatten().sort().values), key
    norm = nas_kd.calibrate(net, [images(space)], archs[:1])[0]
    torch.testing.assert_close(net.eval()(images(space), archs[0], norm), net.extract(archs[0], norm)(images(space)))


@families
def test_importance_falls(space: ElasticSpace) -> None:
    net = full_net(space)
    assert not all(c.importance().diff().le(0).all() for c in inner_channels(net))
    sort_channels(net)
    channels = list(inner_channels(net))
    assert channels and all(c.importance().diff().le(0).all() for c in channels)
    state = {k: v.clone() for k, v in net.state_dict().items()}
    sort_channels(net)  # sorted is sorted
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())


def test_importance_is_the_l1_norm_of_what_reads_a_channel() -> None:
    net = full_net(MOBILE)
    block = net.stages[0].layers[1]
    by_hand = [float(block.project.weight[:, c].detach().abs().sum()) for c in range(block.project.weight.shape[1])]
    hidden, mid = list(inner_channels(net))[2:4]  # of the second layer: squeeze-excite, then the expansion
    torch.testing.assert_close(mid.importance(), torch.tensor(by_hand))
    assert len(hidden.importance()) == block.se_reduce.weight.shape[0]
    order = torch.tensor(by_hand).argsort(descending=True)
    wanted = {name: getattr(block, name).weight[order].clone() for name in ("expand", "depthwise", "expand_bn")}
    sort_channels(net)
    for name, weight in wanted.items():
        assert torch.equal(getattr(block, name).weight, weight), name


def test_heads_of_attention_move_as_a_whole() -> None:
    net = full_net(VIT)
    layer = net.stages[0].layers[0]
    before = layer.qkv.weight.clone().unflatten(0, (3, 12))  # 3 heads of 4 queries, keys and values
    worth = layer.proj.weight.abs().sum(0).unflatten(0, (3, 4)).sum(1)
    sort_channels(net)
    assert torch.equal(layer.qkv.weight.unflatten(0, (3, 12)), before[worth.argsort(descending=True)])


@TRANSFORMED
@families
def test_what_is_trained_already_stays_what_it_was(space: ElasticSpace, transform: bool) -> None:
    """Two inner widths are in use: a third is sorted, and no arch of the two notices."""
    net = full_net(space, kernel_transform=transform).double()
    used = restricted(space, kernels=None, depths=None, others=2)
    archs = [widened(used.sample(seed), used, space) for seed in range(12)]
    before = outputs(net, [*archs, space.smallest()])
    sort_channels(net, used)
    after = close(before, outputs(net, [*archs, space.smallest()]))
    assert all(after[:-1])
    assert after[-1] == (used.hash == space.hash)
    for channels in inner_channels(net, used):
        assert len(channels.used) > 0
        borders = sorted({0, channels.fixed, *channels.used})
        importance = channels.importance()
        for start, end in pairwise([b for b in borders if b >= channels.fixed]):
            assert importance[start:end].diff().le(0).all()


def test_an_expand_ratio_of_one_keeps_the_channels_of_its_input() -> None:
    """Its depthwise convolution reads the layer's input, whose channels do not move."""
    net = full_net(MOBILE).double()
    plain = Candidate(8, ((3, 1, False), (5, 1, False)))
    arch = MOBILE.arch((plain, MOBILE.stages[1].smallest()))
    before = outputs(net, [arch])
    sort_channels(net, MOBILE)
    assert close(before, outputs(net, [arch]))[0]


def test_groups_of_a_grouped_convolution_stay_together() -> None:
    net = full_net(BOTTLENECK)
    layer = net.stages[1].layers[0]
    before = layer.conv2.weight.unflatten(0, (-1, 4)).clone()
    worth = layer.conv3.weight.abs().sum((0, 2, 3)).unflatten(0, (-1, 4)).sum(1)
    sort_channels(net)
    assert torch.equal(layer.conv2.weight.unflatten(0, (-1, 4)), before[worth.argsort(descending=True)])


def test_gradients_and_graphs_are_left_alone() -> None:
    net = full_net(BASIC)
    sort_channels(net)
    assert all(p.requires_grad and p.is_leaf and p.grad is None for p in net.parameters())
