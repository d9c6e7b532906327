"""Heads and the plain stem against their formulas; narrower ones are the first channels of wider ones."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from toys import bn, shake

from nas_kd.blocks import MobileHead
from nas_kd.blocks.conv_stem import ConvStemNet
from nas_kd.blocks.linear_head import LinearHeadNet
from nas_kd.blocks.mobile_head import ElasticMobileHead, MobileHeadNet
from nas_kd.blocks.norm_head import NormHeadNet


@pytest.mark.parametrize("stride", [1, 2])
def test_conv_stem(stride: int) -> None:
    stem, x = shake(ConvStemNet(3, 5, stride, "hardswish")), torch.randn(2, 3, 7, 7)
    torch.testing.assert_close(stem(x), F.hardswish(bn(stem.bn, F.conv2d(x, stem.conv.weight, None, stride, 1))))


@pytest.mark.parametrize("features", [0, 9])
def test_linear_head(features: int) -> None:
    head, x = shake(LinearHeadNet(6, features, 4, "silu")), torch.randn(3, 6, 2, 5)
    here = F.silu(bn(head.bn, F.conv2d(x, head.conv.weight))) if features else x
    logits, pooled = head(x)
    torch.testing.assert_close(pooled, here.mean((2, 3)))
    torch.testing.assert_close(logits, F.linear(pooled, head.fc.weight, head.fc.bias))


def test_mobile_head() -> None:
    head, x = shake(MobileHeadNet(6, 8, 10, 4, "hardswish")), torch.randn(3, 6, 2, 5)
    here = F.hardswish(bn(head.bn, F.conv2d(x, head.conv.weight))).mean((2, 3))
    logits, pooled = head(x)
    torch.testing.assert_close(pooled, F.hardswish(F.linear(here, head.mix.weight[:, :, 0, 0])))
    torch.testing.assert_close(logits, F.linear(pooled, head.fc.weight, head.fc.bias))


def test_norm_head_normalises_every_position() -> None:
    head, x = shake(NormHeadNet(6, 4)), torch.randn(3, 6, 2, 5)
    tokens = x.flatten(2).transpose(1, 2)
    centred = tokens - tokens.mean(2, keepdim=True)
    normed = centred / (centred.square().mean(2, keepdim=True) + 1e-5).sqrt() * head.norm.weight + head.norm.bias
    logits, pooled = head(x)
    torch.testing.assert_close(pooled, normed.mean(1))
    torch.testing.assert_close(logits, F.linear(pooled, head.fc.weight, head.fc.bias))


def test_the_first_convolution_of_a_mobile_head_follows_its_input() -> None:
    head = ElasticMobileHead(MobileHead(features=(8, 12), expand=3), 10, 4)
    assert head.conv.weight.shape == (30, 10, 1, 1)
    seen = []
    head.conv.register_forward_hook(lambda module, args, out: seen.append(out.shape[1]))
    for width in (6, 10):
        assert head(torch.randn(2, width, 3, 3), (8,))[1].shape == (2, 8)
    assert seen == [18, 30]
    fixed = ElasticMobileHead(MobileHead(features=8, channels=16), 10, 4)
    fixed.conv.register_forward_hook(lambda module, args, out: seen.append(out.shape[1]))
    fixed(torch.randn(2, 6, 3, 3), ())
    assert seen[-1] == 16
