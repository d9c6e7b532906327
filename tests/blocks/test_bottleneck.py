"""ResNet-D's block and stem against their formulas and against timm's network."""

from __future__ import annotations

import pytest
import timm
import torch
import torch.nn.functional as F
from toys import bn, shake

import nas_kd
from nas_kd.blocks import BottleneckStage
from nas_kd.blocks.bottleneck import Bottleneck, ElasticBottleneck
from nas_kd.blocks.resnetd_stem import ResNetDStemNet
from nas_kd.nn.shortcut import pooled
from search_spaces import ofa_resnet50d


@pytest.mark.parametrize("size", [4, 5])
def test_pooling_averages_the_pixels_there_are(size: int) -> None:
    x = torch.randn(2, 3, size, size)
    out = pooled(x, 2)
    assert pooled(x, 1) is x and out.shape == (2, 3, -(-size // 2), -(-size // 2))
    for row in range(out.shape[2]):
        for column in range(out.shape[3]):
            there = x[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            torch.testing.assert_close(out[:, :, row, column], there.mean((2, 3)))


@pytest.mark.parametrize(("inputs", "stride", "group_width"), [(8, 1, 0), (8, 2, 0), (6, 1, 2), (6, 2, 4)])
def test_bottleneck(inputs: int, stride: int, group_width: int) -> None:
    block, x = shake(Bottleneck(inputs, 4, 8, stride, group_width)), torch.randn(3, inputs, 7, 7)
    groups = 4 // group_width if group_width else 1
    out = F.relu(bn(block.bn1, F.conv2d(x, block.conv1.weight)))
    out = F.relu(bn(block.bn2, F.conv2d(out, block.conv2.weight, None, stride, 1, groups=groups)))
    out = bn(block.bn3, F.conv2d(out, block.conv3.weight))
    identity = inputs == 8 and stride == 1
    assert identity != hasattr(block, "shortcut")
    way = x if identity else bn(block.shortcut_bn, F.conv2d(pooled(x, stride), block.shortcut.weight))
    post, pre = block(x)
    torch.testing.assert_close(pre, out + way)
    assert torch.equal(post, F.relu(pre))


def test_groups_are_whole_ones_of_the_first_channels() -> None:
    """A smaller grouped convolution is the larger one with its last groups dropped."""
    stage = BottleneckStage(widths=(16,), depths=(1,), expands=(0.5, 1.0), group_width=4)
    block, x = shake(ElasticBottleneck(stage, 16, 16, 1, False)), torch.randn(2, 16, 5, 5)
    assert block.conv2.weight.shape == (16, 4, 3, 3)
    whole = block.conv2(x, 16)
    assert torch.equal(block.conv2(x[:, :8], 8), whole[:, :8])


@pytest.mark.parametrize("residual", [True, False])
def test_stem(residual: bool) -> None:
    stem, x = shake(ResNetDStemNet(3, 4, 6, residual)), torch.randn(2, 3, 13, 13)
    out = F.relu(bn(stem.bn1, F.conv2d(x, stem.conv1.weight, None, 2, 1)))
    if residual:
        out = out + F.relu(bn(stem.bn2, F.conv2d(out, stem.conv2.weight, None, 1, 1)))
    out = F.relu(bn(stem.bn3, F.conv2d(out, stem.conv3.weight, None, 1, 1)))
    torch.testing.assert_close(stem(x), F.max_pool2d(out, 3, 2, 1))
    assert hasattr(stem, "conv2") == residual


def test_the_stages_are_those_of_timm() -> None:
    """ResNet-50-D's four stages with timm's weights give timm's features."""
    theirs = timm.create_model("resnet50d").eval()
    mine = ofa_resnet50d.SPACE.build(ofa_resnet50d.ARCHS["resnet50d"], num_classes=1000).eval()
    assert isinstance(mine, nas_kd.nn.StaticNet)
    x = torch.randn(2, 64, 17, 17)
    for number, stage in enumerate(mine.stages, 1):
        layer = getattr(theirs, f"layer{number}")
        with torch.no_grad():
            for value in layer.state_dict().values():
                if value.ndim == 1:  # scales, shifts and statistics
                    value.uniform_(0.5, 1.5)
        named = {
            f"layers.{key}".replace("downsample.1", "shortcut").replace("downsample.2", "shortcut_bn"): value
            for key, value in layer.state_dict().items()
        }
        stage.load_state_dict(named)
        with torch.no_grad():
            wanted = layer(x)
            torch.testing.assert_close(stage(x)[0], wanted)
        x = wanted
