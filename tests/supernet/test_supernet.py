"""What a supernet is apart from what every space must keep (tests/contracts)."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

import nas_kd
from nas_kd.blocks import ConvStem, LinearHead, MBStage
from nas_kd.errors import SettingError
from nas_kd.space import Candidate, ElasticSpace


@pytest.fixture
def net() -> nas_kd.Supernet:
    torch.manual_seed(0)
    return nas_kd.Supernet(nas_kd.load_space("digits"), num_classes=10, in_chans=1)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_evaluation_needs_statistics(net: nas_kd.Supernet, x: torch.Tensor) -> None:
    arch = net.space.smallest()
    net(x, arch)
    net.eval()
    for call in (net, net.forward_stages):
        with pytest.raises(RuntimeError, match="norm="):
            call(x, arch)
    (norm,) = nas_kd.calibrate(net, [x], [arch])
    assert net(x, arch, norm).shape == (6, 10)


def test_images_of_other_channels_are_refused(x: torch.Tensor) -> None:
    net = nas_kd.Supernet(nas_kd.load_space("digits"), num_classes=10, in_chans=3)
    for arch in (net.space.smallest(), net.space.largest()):
        with pytest.raises(SettingError, match=r"^x=\(6, 1, 8, 8\).*3 channels"):
            net(x, arch)
        with pytest.raises(SettingError, match=r"^x=\(6, 1, 8, 8\).*3 channels"):
            nas_kd.calibrate(net, [x], [arch])


def test_settings_that_the_space_does_not_offer_are_refused(net: nas_kd.Supernet, x: torch.Tensor) -> None:
    arch = net.space.largest()
    narrow = replace(arch, stages=(replace(arch.stages[0], width=arch.stages[0].width - 1), *arch.stages[1:]))
    for refusing in (lambda: nas_kd.calibrate(net, [x], [arch, narrow]), lambda: net.extract(narrow)):
        with pytest.raises(SettingError, match=r"^arch\.stages\[0\]="):
            refusing()


def test_evaluation_does_not_depend_on_the_batch(net: nas_kd.Supernet, x: torch.Tensor) -> None:
    arch = net.space.sample(4)
    (norm,) = nas_kd.calibrate(net, [x], [arch])
    net.eval()
    one_by_one = torch.cat([net(image[None], arch, norm) for image in x])
    torch.testing.assert_close(net(x, arch, norm), one_by_one)


def test_the_arch_leaves_no_trace(net: nas_kd.Supernet, x: torch.Tensor) -> None:
    """No state hides in modules: archs in any order, and parts of them, give what they give alone."""
    space = net.space
    before = copy.deepcopy(net.state_dict())
    alone = net(x, space.smallest())
    for seed in range(5):
        net(x, space.sample(seed))
        net.extract(space.sample(seed))
    assert torch.equal(net(x, space.smallest()), alone)
    assert net.state_dict().keys() == before.keys() == dict(net.named_parameters()).keys()  # no buffers
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def test_stages_can_be_run_on_their_own(net: nas_kd.Supernet, x: torch.Tensor) -> None:
    arch = net.space.sample(7)
    out = net.forward_stages(x, arch)
    here = net.stem(x, ())
    for index, candidate in enumerate(arch.stages):
        here, pre = net.stages[index](here, candidate, None)
        assert torch.equal(here, out.stages[index]) and torch.equal(pre, out.pre[index])


def test_a_student_shares_nothing(net: nas_kd.Supernet, x: torch.Tensor) -> None:
    arch = net.space.largest()  # whole tensors, which are not even sliced
    student, before = net.extract(arch), net(x, arch)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.zero_()
    assert torch.equal(net(x, arch), before)
    assert all(p.requires_grad and p.grad is None for p in student.parameters())


def test_a_student_without_statistics_has_fresh_ones(net: nas_kd.Supernet) -> None:
    student = net.extract(net.space.sample(2))
    norms = [m for m in student.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all(m.running_mean.eq(0).all() and m.running_var.eq(1).all() for m in norms)


def test_extraction_draws_no_random_numbers(net: nas_kd.Supernet) -> None:
    before = torch.get_rng_state()
    net.extract(net.space.largest())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_student_has_the_dtype_and_mode_of_the_supernet(net: nas_kd.Supernet, x: torch.Tensor) -> None:
    arch = net.space.sample(3)
    student = net.double().extract(arch)
    assert torch.equal(student(x.double()), net(x.double(), arch))
    assert student.training and not net.eval().extract(arch).training


def test_dropout_and_stochastic_depth_are_off_unless_asked_for(net: nas_kd.Supernet, x: torch.Tensor) -> None:
    arch = net.space.largest()
    for parameter in net.parameters():  # residual branches begin at zero, where dropping them changes nothing
        nn.init.normal_(parameter, 0.3, 0.5)
    plain = net.forward_stages(x, arch)
    torch.manual_seed(0)
    assert torch.equal(net(x, arch), plain.logits)
    dropped = net.forward_stages(x, arch, dropout=0.5)
    assert torch.equal(dropped.pooled, plain.pooled) and not torch.equal(dropped.logits, plain.logits)
    shallow = net.forward_stages(x, arch, drop_path=0.9)
    assert not torch.equal(shallow.pooled, plain.pooled)


def test_squeeze_excite_expand_one_and_a_head_convolution() -> None:
    """What no shipped space has: expand ratios that begin at 1, and widths that no multiple of 8 divides."""
    stages = (
        MBStage(widths=(6, 12), depths=(1, 2), kernels=(1, 3), expands=(1, 2, 5), act="hardswish"),
        MBStage(widths=(12, 20), depths=(1, 3), kernels=(3, 7), expands=(1,), ses=(True,), stride=2, act="relu"),
    )
    space = ElasticSpace("odd", ConvStem(12, stride=2, act="hardswish"), stages, LinearHead(9, "relu"), 14)
    net = nas_kd.Supernet(space, num_classes=3, in_chans=2)
    x = torch.randn(3, 2, 14, 14)
    whole = space.arch((Candidate(12, ((3, 1, False), (1, 5, False))), Candidate(20, ((7, 1, True),))))
    for arch in (whole, space.largest(), space.smallest(), *(space.sample(seed) for seed in range(30))):
        student = net.extract(arch)
        assert torch.equal(student(x), net(x, arch)), arch.label
        cost = space.cost(arch, in_chans=2, num_classes=3)
        assert cost.params == sum(p.numel() for p in student.parameters()), arch.label
