"""The CIFAR ResNets against published counts, closed forms and trained weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from toys import Sizes

from nas_kd.data import load_data
from nas_kd.errors import SettingError
from nas_kd.teacher import CifarResNet, cifar_resnet8, cifar_resnet56, load_teacher

PUBLISHED = {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.7}  # million parameters, He et al., table 6


def closed_form(depth: int, num_classes: int, in_chans: int) -> int:
    n = (depth - 2) // 6
    total = in_chans * 16 * 9 + 2 * 16 + 64 * num_classes + num_classes
    for inputs, width in ((16, 16), (16, 32), (32, 64)):
        first = 9 * inputs * width + 9 * width * width + 4 * width
        total += first + (n - 1) * (2 * 9 * width * width + 4 * width)
    return total


@pytest.mark.parametrize("depth", [8, 14, 20, 32, 44, 56, 110])
def test_parameters_equal_the_closed_form_and_the_paper(depth: int) -> None:
    for num_classes, in_chans in ((10, 3), (7, 1)):
        net = CifarResNet(depth, num_classes, in_chans)
        assert sum(p.numel() for p in net.parameters()) == closed_form(depth, num_classes, in_chans)
    if depth in PUBLISHED:
        digits = 1 if depth == 110 else 2
        assert round(closed_form(depth, 10, 3) / 1e6, digits) == pytest.approx(PUBLISHED[depth], abs=0.011)


def test_macs_are_those_of_the_published_network() -> None:
    teacher = load_teacher("cifar_resnet56", num_classes=10)
    teacher.match(Sizes(16, 8, 4), 32)
    assert teacher.macs == pytest.approx(125.8e6, rel=0.005)


def test_option_a_shortcut_subsamples_and_pads_with_zeros() -> None:
    block = CifarResNet(8).layer2[0]
    torch.nn.init.zeros_(block.bn2.weight)  # type: ignore[arg-type]
    torch.nn.init.zeros_(block.bn2.bias)  # type: ignore[arg-type]
    x = torch.rand(2, 16, 8, 8)
    out = block.eval()(x)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2])
    assert not out[:, :8].any() and not out[:, 24:].any()


def test_features_are_those_of_the_forward_pass() -> None:
    net = cifar_resnet8(num_classes=5, in_chans=1).eval()
    assert net.block_names == ["layer1.0", "layer2.0", "layer3.0"]
    x = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        out = net.forward_stages(x)
        assert torch.equal(out.logits, net(x))
        stem = F.relu(net.bn1(net.conv1(x)))
        assert torch.equal(out.stages[1], net.layer2(net.layer1(stem)))
    assert [tuple(f.shape) for f in out.stages] == [(2, 16, 8, 8), (2, 32, 4, 4), (2, 64, 2, 2)]
    for post, pre in zip(out.stages, out.pre, strict=True):
        assert torch.equal(post, F.relu(pre)) and (pre < 0).any()
    assert torch.equal(out.pooled, out.stages[-1].mean((2, 3)))


def test_any_block_can_be_read_and_unknown_ones_are_refused() -> None:
    net = CifarResNet(20).eval()
    out = net.forward_stages(torch.zeros(1, 3, 16, 16), ["layer3.1", "layer1.2"])
    assert [f.shape[1] for f in out.stages] == [64, 16]
    with pytest.raises(SettingError, match="did you mean 'layer3.2'"):
        net.forward_stages(torch.zeros(1, 3, 16, 16), ["layer3.22"])
    with pytest.raises(SettingError, match="depth=21"):
        CifarResNet(21)


def test_it_trains() -> None:
    net = cifar_resnet8(num_classes=3)
    net(torch.randn(4, 3, 8, 8)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def accuracy(folder: Path, test: Path | None = None) -> float:
    # nothing is trained, so the images that stand for training ones may be those of the test
    data = load_data(folder / "test.tar", test=test, rate=0, select=0, views=0, duplicates="keep")
    teacher = load_teacher("cifar_resnet56", checkpoint=folder / "resnet56.safetensors").bind(data)
    right = count = 0
    limit = None if test else 1000
    for batch in data.test.clean(250, limit=limit):
        logits = teacher(batch.x)
        if not count:
            assert torch.equal(logits, teacher(batch.x))
        right += int((logits.argmax(1) == batch.y).sum())
        count += len(batch.y)
    return right / count


def test_shared_weights_recognise_a_thousand_images(cifar10: Path) -> None:
    assert accuracy(cifar10) == pytest.approx(0.8959, abs=0.03)  # three standard errors


@pytest.mark.slow
def test_shared_weights_reach_their_accuracy(cifar10: Path) -> None:
    assert accuracy(cifar10, test=cifar10 / "test.tar") == pytest.approx(0.8959, abs=2e-4)


def test_factories_build_their_depth() -> None:
    assert len(cifar_resnet56().block_names) == 27
