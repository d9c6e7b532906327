"""Importance sorting: the largest stays what it was, what is nested stays nested, the first channels weigh most."""

from __future__ import annotations

import torch
from tiny_spaces import BASIC, BOTTLENECK, MOBILE, VIT, close, full_net, outputs

from nas_kd.blocks import BottleneckStage, LinearHead, ResNetDStem
from nas_kd.space import Candidate, ElasticSpace
from nas_kd.supernet import sort_channels
from nas_kd.supernet.sorting import inner_channels


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


def test_a_stem_keeps_the_channels_that_its_rounded_choice_has() -> None:
    """A middle width of 20 is 24 channels: what uses them sees none of the others come in."""
    stage = BottleneckStage(widths=(16,), depths=(1,), expands=(0.5,))
    space = ElasticSpace("rounded", ResNetDStem(mid=(20, 40), width=8), (stage,), LinearHead(), resolution=16)
    net = full_net(space).double()
    archs = [space.smallest(), space.largest()]
    before = outputs(net, archs)
    sort_channels(net, space)
    assert all(close(before, outputs(net, archs)))
