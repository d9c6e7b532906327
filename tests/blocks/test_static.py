"""Static blocks against their formulas, and networks from layer lists."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from toys import bn, shake

import nas_kd
from nas_kd.blocks import kinds
from nas_kd.blocks.basic import BasicBlock
from nas_kd.blocks.bottleneck import Bottleneck
from nas_kd.blocks.mbconv import MBConv
from nas_kd.errors import SettingError
from nas_kd.nn import StaticNet
from nas_kd.nn.shortcut import pooled


@pytest.mark.parametrize(("inputs", "stride"), [(6, 1), (6, 2), (5, 1), (5, 2)])
def test_basic_block(inputs: int, stride: int) -> None:
    block, x = shake(BasicBlock(inputs, 4, 6, stride)), torch.randn(3, inputs, 7, 7)
    branch = F.relu(bn(block.bn1, F.conv2d(x, block.conv1.weight, None, stride, 1)))
    branch = bn(block.bn2, F.conv2d(branch, block.conv2.weight, None, 1, 1))
    identity = inputs == 6 and stride == 1
    assert identity != hasattr(block, "shortcut")
    way = x if identity else bn(block.shortcut_bn, F.conv2d(x, block.shortcut.weight, None, stride))
    post, pre = block(x)
    torch.testing.assert_close(pre, branch + way)
    assert torch.equal(post, F.relu(pre))


@pytest.mark.parametrize(("inputs", "mid", "stride", "se"), [(8, 24, 1, 8), (8, 24, 2, 0), (6, 6, 1, 8), (8, 8, 1, 0)])
def test_mbconv(inputs: int, mid: int, stride: int, se: int) -> None:
    block, x = shake(MBConv(inputs, mid, 8, stride, 5, se, "silu")), torch.randn(3, inputs, 7, 7)
    out = x
    if mid != inputs:
        out = F.silu(bn(block.expand_bn, F.conv2d(out, block.expand.weight)))
    out = F.silu(bn(block.depthwise_bn, F.conv2d(out, block.depthwise.weight, None, stride, 2, groups=mid)))
    if se:
        gate = F.relu(F.linear(out.mean((2, 3)), block.se_reduce.weight[:, :, 0, 0], block.se_reduce.bias))
        gate = F.hardsigmoid(F.linear(gate, block.se_expand.weight[:, :, 0, 0], block.se_expand.bias))
        out = out * gate[:, :, None, None]
    out = bn(block.project_bn, F.conv2d(out, block.project.weight))
    if inputs == 8 and stride == 1:
        out = out + x
    post, pre = block(x)
    assert post is pre  # the block ends linear
    torch.testing.assert_close(post, out)


@pytest.mark.parametrize(("inputs", "stride"), [(8, 1), (8, 2), (6, 1), (6, 2)])
def test_mbconv_with_a_pooled_shortcut(inputs: int, stride: int) -> None:
    """Where the shape changes, the shortcut is the mean of 2 x 2 pixels, then a 1x1 convolution without norm."""
    block, x = shake(MBConv(inputs, 24, 8, stride, 3, 0, "silu", pooled=True)), torch.randn(3, inputs, 7, 7)
    plain = shake(MBConv(inputs, 24, 8, stride, 3, 0, "silu"))
    plain.load_state_dict({key: value for key, value in block.state_dict().items() if key != "shortcut.weight"})
    assert hasattr(block, "shortcut") == (inputs != 8) and "shortcut.bias" not in block.state_dict()
    way = x
    if stride == 2:
        way = torch.stack([x[:, :, i : i + 2, j : j + 2].mean((2, 3)) for i in (0, 2, 4, 6) for j in (0, 2, 4, 6)], 2)
        way = way.unflatten(2, (4, 4))
    if inputs != 8:
        way = F.conv2d(way, block.shortcut.weight)
    branch = plain(x)[0] - (x if inputs == 8 and stride == 1 else 0)
    torch.testing.assert_close(block(x)[0], branch + way)


def test_residual_branches_begin_at_zero() -> None:
    x = torch.randn(3, 8, 5, 5).relu()
    for block in (BasicBlock(8, 4, 8, 1), MBConv(8, 24, 8, 1, 3, 8, "silu"), Bottleneck(8, 4, 8, 1, 0)):
        assert torch.equal(block(x)[0], x)
    way = Bottleneck(4, 8, 6, 2, 0)
    shortcut = way.shortcut_bn(way.shortcut(pooled(x[:, :4], 2)))
    assert torch.equal(way(x[:, :4])[1], shortcut)  # a projecting shortcut carries the signal
    for block in (BasicBlock(8, 4, 8, 2), BasicBlock(4, 4, 8, 1)):
        assert block.bn2.weight.eq(1).all()  # nothing else carries the signal
    assert MBConv(4, 24, 8, 1, 3, 8, "silu").project_bn.weight.eq(1).all()


def test_drop_path_only_touches_the_residual_branch() -> None:
    x = torch.randn(64, 6, 5, 5)
    for block in (shake(BasicBlock(6, 4, 6, 1)), shake(MBConv(6, 24, 6, 1, 3, 0, "relu"))):
        whole = block(x)[1] - x
        torch.manual_seed(1)
        part = block(x, drop=0.5)[1] - x
        kept = part.flatten(1).abs().amax(1) > 1e-4
        assert 10 < kept.sum() < 54
        torch.testing.assert_close(part[kept], 2 * whole[kept], rtol=1e-4, atol=1e-4)


def test_a_network_needs_only_its_layer_list() -> None:
    for name in ("digits", "mobilenet_cifar"):
        space = nas_kd.load_space(name)
        layers = space.layers(space.sample(5), num_classes=4, in_chans=2)
        first = StaticNet(layers, kinds())
        again = StaticNet(json.loads(json.dumps(first.layers_spec)), kinds())
        assert again.layers_spec == layers
        again.load_state_dict(first.state_dict())
        x = torch.randn(3, 2, 16, 16)
        out = first.forward_stages(x)
        assert torch.equal(out.logits, again(x)) and torch.equal(out.logits, first(x))
        assert len(out.stages) == len(out.pre) == len(space.stages)
        torch.testing.assert_close(out.logits, F.linear(out.pooled, first.head.fc.weight, first.head.fc.bias))
        if name == "digits":
            assert all(torch.equal(F.relu(pre), post) for pre, post in zip(out.pre, out.stages, strict=True))
            torch.testing.assert_close(out.pooled, out.stages[-1].mean((2, 3)))


def test_an_unknown_layer_is_refused() -> None:
    with pytest.raises(SettingError, match="layers.op='dense'"):
        StaticNet([{"op": "dense"}], kinds())
