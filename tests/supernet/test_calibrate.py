"""Calibration against direct computation over all images at once."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toys import same_norms

import nas_kd
from nas_kd.errors import SettingError

Values = dict[str, tuple[Tensor, Tensor]]


@pytest.fixture
def net() -> nas_kd.Supernet:
    torch.manual_seed(0)
    net = nas_kd.Supernet(nas_kd.load_space("digits"), num_classes=10, in_chans=1)
    for parameter in net.parameters():
        nn.init.normal_(parameter, 0.3, 0.5)
    return net


@pytest.fixture
def batches() -> list[Tensor]:
    """Return batches of unequal sizes whose brightness and contrast differ."""
    g = torch.Generator().manual_seed(1)
    return [torch.randn(n, 1, 8, 8, generator=g) * (0.5 + n / 8) + n / 5 for n in (4, 7, 12, 5)]


@pytest.fixture
def archs(net: nas_kd.Supernet) -> list[nas_kd.Arch]:
    return [net.space.largest(), net.space.smallest(), *(net.space.sample(seed) for seed in range(3))]


def before_first_norm(net: nas_kd.Supernet, images: Tensor) -> Tensor:
    return F.conv2d(images.double(), net.stem.conv.weight.double(), padding=1).transpose(0, 1).flatten(1)


def test_first_norm_equals_direct_computation(net, batches, archs) -> None:
    features = before_first_norm(net, torch.cat(batches))
    for norm in nas_kd.calibrate(net, batches, archs):
        mean, variance = norm["stem.bn"]
        torch.testing.assert_close(mean.double(), features.mean(1), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(variance.double(), features.var(1, unbiased=False), rtol=1e-6, atol=1e-6)


def test_first_norm_does_not_depend_on_the_split_into_batches(net, batches, archs) -> None:
    whole = torch.cat(batches)
    values = [
        nas_kd.calibrate(net, split, archs[:1])[0]["stem.bn"]
        for split in ([whole], whole.split(3), whole.split(14), batches)
    ]
    for mean, variance in values[1:]:
        torch.testing.assert_close(mean, values[0][0], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(variance, values[0][1], rtol=1e-6, atol=1e-6)


def test_one_batch_makes_evaluation_equal_training(net, batches, archs) -> None:
    for arch in archs:
        (norm,) = nas_kd.calibrate(net, batches[:1], [arch])
        training = net.train()(batches[0], arch)
        torch.testing.assert_close(net.eval()(batches[0], arch, norm), training, rtol=1e-4, atol=1e-4)


def test_differs_from_the_mean_of_batch_variances_by_the_variance_of_batch_means(net, batches, archs) -> None:
    equal = torch.cat(batches).split(7)  # four batches of equal size
    _, variance = nas_kd.calibrate(net, equal, archs[:1])[0]["stem.bn"]
    features = [before_first_norm(net, batch) for batch in equal]
    within = torch.stack([f.var(1, unbiased=False) for f in features]).mean(0)
    between = torch.stack([f.mean(1) for f in features]).var(0, unbiased=False)
    assert (between > 0.01 * within).all()
    torch.testing.assert_close(variance.double() - within, between, rtol=1e-4, atol=1e-5)


def test_twice_is_once(net, batches, archs) -> None:
    first = nas_kd.calibrate(net, batches, archs)
    second = nas_kd.calibrate(net, batches, archs)
    assert all(same_norms(a, b) for a, b in zip(first, second, strict=True))


def test_order_of_batches_and_archs_does_not_matter(net, batches, archs) -> None:
    there = nas_kd.calibrate(net, batches, archs)
    back = nas_kd.calibrate(net, batches[::-1], archs[::-1])[::-1]
    for a, b in zip(there, back, strict=True):
        for key in a:
            torch.testing.assert_close(a[key], b[key], rtol=1e-6, atol=1e-6)


def test_many_in_one_pass_equal_one_by_one(net, batches, archs) -> None:
    together = nas_kd.calibrate(net, iter(batches), archs)  # one pass: an iterator is enough
    for arch, norm in zip(archs, together, strict=True):
        assert same_norms(norm, nas_kd.calibrate(net, batches, [arch])[0])


@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_written(net, batches, archs, training: bool) -> None:
    net.train(training)
    before = copy.deepcopy(net.state_dict())
    random = torch.get_rng_state()
    norms = nas_kd.calibrate(net, batches, archs)
    assert net.training == training and torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    assert not any(t.requires_grad for norm in norms for pair in norm.values() for t in pair)


def test_batches_may_carry_labels(net, batches, archs) -> None:
    labelled = [(x, torch.zeros(len(x))) for x in batches]
    assert same_norms(nas_kd.calibrate(net, labelled, archs[:1])[0], nas_kd.calibrate(net, batches, archs[:1])[0])


def plain() -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Conv2d(1, 5, 3),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.LazyLinear(6),
        nn.BatchNorm1d(6, momentum=None),
        nn.Linear(6, 2),
    )


def first_pooled(model: nn.Sequential, batches: list[Tensor]) -> tuple[Tensor, Tensor]:
    conv = model[0].double()
    every = conv(torch.cat(batches).double()).transpose(0, 1).flatten(1).detach()
    conv.float()
    return every.mean(1), every.var(1, unbiased=False)


def test_plain_module_in_place(batches) -> None:
    model = plain()
    model(batches[0])
    assert nas_kd.calibrate(model, batches) is None
    mean, variance = first_pooled(model, batches)
    torch.testing.assert_close(model[1].running_mean.double(), mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(model[1].running_var.double(), variance, rtol=1e-6, atol=1e-6)
    # the deeper norm by hand: its input when the norm before it takes each batch's own statistics
    deep = [model[5](model[4](F.relu(F.batch_norm(model[0](x), None, None, None, None, True)))) for x in batches]
    every = torch.cat(deep).double()
    torch.testing.assert_close(model[6].running_mean.double(), every.mean(0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model[6].running_var.double(), every.var(0, unbiased=False), rtol=1e-5, atol=1e-5)


def test_it_is_not_momentum_a_tenth_over_some_batches(batches) -> None:
    """Four batches of momentum 0.1 leave two thirds of the initial 0 and 1 behind."""
    model = plain()
    model(batches[0])
    usual = copy.deepcopy(model)
    usual[1].reset_running_stats()
    for x in batches:
        usual(x)
    nas_kd.calibrate(model, batches)
    mean, _ = first_pooled(model, batches)
    assert ((usual[1].running_mean - mean).abs() > 0.3 * mean.abs()).all()
    torch.testing.assert_close(model[1].running_mean.double(), mean, rtol=1e-6, atol=1e-6)


def test_plain_module_keeps_its_modes_weights_and_momenta(batches) -> None:
    model = plain()
    model(batches[0])
    model.train()
    model[1].eval()  # a frozen part, as in fine-tuning
    model[3].eval()
    before = {key: value.clone() for key, value in model.named_parameters()}
    nas_kd.calibrate(model, batches)
    assert [m.training for m in model] == [True, False, True, False, True, True, True, True]
    assert (model[1].momentum, model[6].momentum) == (0.1, None)
    assert all(torch.equal(before[key], value) for key, value in model.named_parameters())
    assert not any(m._forward_hooks for m in model.modules())


def test_plain_module_is_left_alone_when_batches_fail(batches) -> None:
    model = plain()
    model(batches[0])
    model.eval()
    before = copy.deepcopy(model.state_dict())

    def broken():
        yield batches[0]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="disk"):
        nas_kd.calibrate(model, broken())
    assert not any(m.training for m in model.modules()) and model[1].momentum == 0.1
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_missing_things_are_refused(net, batches, archs) -> None:
    with pytest.raises(SettingError, match="archs"):
        nas_kd.calibrate(net, batches)
    with pytest.raises(SettingError, match="archs"):
        nas_kd.calibrate(net, batches, [])
    with pytest.raises(SettingError, match="archs"):
        nas_kd.calibrate(plain(), batches, archs)
    with pytest.raises(SettingError, match="batches"):
        nas_kd.calibrate(net, [], archs)
    with pytest.raises(SettingError, match="batches"):
        nas_kd.calibrate(plain(), [])
