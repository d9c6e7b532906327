"""Logit losses against closed forms and identities in float64."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from toys import grad

from nas_kd import losses
from nas_kd.errors import SettingError

GENERATOR = torch.Generator().manual_seed(0)
S = torch.randn(16, 10, generator=GENERATOR, dtype=torch.float64) * 2
T = torch.randn(16, 10, generator=GENERATOR, dtype=torch.float64) * 2
Y = torch.randint(10, (16,), generator=GENERATOR)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_kd_value_and_gradient(temperature):
    q, p = S / temperature, T / temperature
    expected = temperature**2 * F.kl_div(q.log_softmax(1), p.softmax(1), reduction="batchmean")
    torch.testing.assert_close(losses.kd(S, T, temperature=temperature), expected)
    slope = temperature * (q.softmax(1) - p.softmax(1)) / 16
    torch.testing.assert_close(grad(losses.kd, S, T, temperature=temperature), slope, rtol=0, atol=1e-15)


def test_kd_ignores_shifts_and_defaults_to_temperature_4():
    shift = torch.arange(16.0, dtype=torch.float64)[:, None]
    torch.testing.assert_close(losses.kd(S + shift, T - shift), losses.kd(S, T, temperature=4))


@pytest.mark.parametrize(("temperature", "error"), [(100, 2e-2), (1000, 2e-3), (10000, 2e-4)])
def test_kd_goes_to_half_the_mse_of_centred_logits(temperature, error):
    centred = [z - z.mean(1, keepdim=True) for z in (S, T)]
    limit = losses.logit_mse(*centred) / 2
    assert abs(float(losses.kd(S, T, temperature) / limit) - 1) < error


def test_logit_mse():
    torch.testing.assert_close(losses.logit_mse(S, T), ((S - T) ** 2).mean())
    torch.testing.assert_close(grad(losses.logit_mse, S, T), 2 * (S - T) / S.numel())


def test_standardise_has_zero_mean_and_unbiased_unit_deviation():
    z = losses.standardise(5 * S + 3)
    torch.testing.assert_close(z.mean(1), torch.zeros(16, dtype=torch.float64), rtol=0, atol=1e-14)
    torch.testing.assert_close(z.std(1), torch.ones(16, dtype=torch.float64), rtol=0, atol=1e-6)
    equal = torch.ones(2, 5, requires_grad=True)
    losses.standardise(equal).square().sum().backward()
    assert torch.equal(losses.standardise(equal), torch.zeros(2, 5)) and torch.isfinite(equal.grad).all()


def test_kd_ls_ignores_affine_maps_and_its_gradient_is_orthogonal_to_them():
    value = losses.kd_ls(S, T, temperature=2.0)
    expected = losses.kd(losses.standardise(S), losses.standardise(T), temperature=2.0)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(losses.kd_ls(3 * S + 7, T), value, rtol=1e-6, atol=0)
    torch.testing.assert_close(losses.kd_ls(S, 0.2 * T - 7), value, rtol=1e-6, atol=0)
    gradient = grad(losses.kd_ls, S, T)
    assert gradient.sum(1).abs().max() < 1e-15
    assert (gradient * (S - S.mean(1, keepdim=True))).sum(1).abs().max() < 1e-7


def deleted(z: Tensor, y: Tensor) -> Tensor:
    keep = F.one_hot(y, z.shape[1]) == 0
    return z[keep].reshape(len(z), -1)


def test_dkd_parts_are_the_binary_kl_and_the_kl_of_true_deletion():
    p, q = (T / 4).softmax(1), (S / 4).softmax(1)
    a, b = p.gather(1, Y[:, None])[:, 0], q.gather(1, Y[:, None])[:, 0]
    binary = (a * (a / b).log() + (1 - a) * ((1 - a) / (1 - b)).log()).mean()
    torch.testing.assert_close(losses.dkd(S, T, Y, alpha=1, beta=0), 16 * binary)
    rest = losses.kd(deleted(S, Y), deleted(T, Y), temperature=4)
    torch.testing.assert_close(losses.dkd(S, T, Y, alpha=0, beta=1), rest)
    torch.testing.assert_close(losses.dkd(S, T, Y, alpha=0.5, beta=3), 8 * binary + 3 * rest)


def test_dkd_with_the_teachers_doubt_as_beta_is_kd():
    for s, t, y in zip(S, T, Y, strict=True):
        beta = 1 - float((t / 4).softmax(0)[y])
        one = (s[None], t[None], y[None])
        torch.testing.assert_close(losses.dkd(*one, alpha=1, beta=beta), losses.kd(s[None], t[None]))
        slope = grad(losses.dkd, *one, alpha=1, beta=beta)
        torch.testing.assert_close(slope, grad(losses.kd, s[None], t[None]), rtol=0, atol=1e-14)


def test_dkd_survives_two_classes_large_gaps_and_refuses_soft_labels():
    two = S[:, :2], T[:, :2], Y % 2
    assert losses.dkd(*two, alpha=0, beta=1) == 0
    assert torch.isfinite(grad(losses.dkd, *two)).all()
    far = torch.zeros(16, 10).scatter(1, Y[:, None], 1e4)
    assert torch.isfinite(losses.dkd(far, -far, Y)) and torch.isfinite(grad(losses.dkd, far, -far, Y)).all()
    with pytest.raises(ValueError, match="class numbers"):
        losses.dkd(S, T, T.softmax(1))


def test_dkd_gradient_is_the_numerical_one():
    assert torch.autograd.gradcheck(lambda s: losses.dkd(s, T[:3], Y[:3]), S[:3].clone().requires_grad_())


def rho(a: Tensor, b: Tensor) -> Tensor:
    return torch.corrcoef(torch.stack([a, b]))[0, 1]


def test_dist_is_one_minus_the_correlations_of_rows_and_columns():
    q, p = (S / 4).softmax(1), (T / 4).softmax(1)
    rows = 1 - torch.stack([rho(q[i], p[i]) for i in range(16)]).mean()
    columns = 1 - torch.stack([rho(q[:, c], p[:, c]) for c in range(10)]).mean()
    torch.testing.assert_close(losses.dist(S, T, beta=2, gamma=0), 32 * rows)
    torch.testing.assert_close(losses.dist(S, T, beta=0, gamma=3), 48 * columns)
    assert torch.autograd.gradcheck(lambda s: losses.dist(s, T), S.clone().requires_grad_())


def test_dist_extremes():
    torch.testing.assert_close(losses.dist(T, T), torch.tensor(0.0, dtype=torch.float64), rtol=0, atol=1e-13)
    two = torch.tensor([[2.0, -1.0], [0.5, 1.0]], dtype=torch.float64)  # two classes: flipped rows have rho -1
    torch.testing.assert_close(losses.dist(two, two.flip(1), temperature=1), 2 * (1 + 1 + two.new_zeros(())))
    assert torch.isfinite(grad(losses.dist, S[:1], T[:1])).all()


@pytest.mark.parametrize("name", ["kd", "kd_ls", "dkd", "dist"])
@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_temperature_is_checked(name, temperature):
    labels = (Y,) if name == "dkd" else ()
    with pytest.raises(SettingError, match="temperature"):
        getattr(losses, name)(S, T, *labels, temperature=temperature)


@pytest.mark.parametrize("name", ["kd", "dkd", "dist"])
def test_standardised_losses_ignore_shift_and_scale(name):
    labels = (Y,) if name == "dkd" else ()
    value = losses.standardised(getattr(losses, name), S, T, *labels, temperature=2.0)
    scale = torch.linspace(0.2, 9, 16, dtype=torch.float64)[:, None]
    moved = losses.standardised(getattr(losses, name), scale * S + 3, T * scale - scale, *labels, temperature=2.0)
    torch.testing.assert_close(moved, value, rtol=1e-5, atol=1e-9)
    if name == "kd":
        assert torch.equal(value, losses.kd_ls(S, T, temperature=2.0))


def test_the_virtual_teacher_is_label_smoothing_at_temperature_1():
    correct, classes = 0.9, 10
    off = (1 - correct) / (classes - 1)
    u = torch.full_like(S, off).scatter_(1, Y[:, None], correct)
    entropy = -(u * u.log()).sum(1).mean()
    # smoothing e gives the label 1 - e + e / C
    smoothed = F.cross_entropy(S, Y, label_smoothing=off * classes)
    value = losses.virtual_teacher(S, Y, correct=correct, temperature=1.0, variant="paper")
    torch.testing.assert_close(value, smoothed - entropy)
    soft = u ** (1 / 20)
    expected = 400 * F.kl_div((S / 20).log_softmax(1), soft / soft.sum(1, keepdim=True), reduction="batchmean")
    torch.testing.assert_close(losses.virtual_teacher(S, Y, correct=correct, variant="paper"), expected)
    slope = grad(losses.virtual_teacher, S, Y, temperature=1.0, variant="paper")
    torch.testing.assert_close(slope, grad(F.cross_entropy, S, Y, label_smoothing=0.1 / 9))
    with pytest.raises(SettingError, match="above 1/10"):
        losses.virtual_teacher(S, Y, correct=0.1)


def test_the_virtual_teacher_of_the_authors_softens_its_probabilities_alone():
    total = 0.0
    for row, label in zip(S, Y.tolist(), strict=True):
        share = [math.exp((0.99 if c == label else 0.01 / 9) / 20) for c in range(10)]
        u = [x / sum(share) for x in share]
        log_q = row.log_softmax(0).tolist()
        total += sum(p * (math.log(p) - q) for p, q in zip(u, log_q, strict=True))
    assert float(losses.virtual_teacher(S, Y)) == pytest.approx(total / len(S), rel=1e-12)
    assert torch.autograd.gradcheck(lambda s: losses.virtual_teacher(s, Y), S.clone().requires_grad_())
    with pytest.raises(SettingError, match="code or paper"):
        losses.virtual_teacher(S, Y, variant="smooth")


def test_a_mixture_of_teachers():
    three = torch.stack([T, 2 * S, T.flip(1)])
    weights = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    shares = weights.softmax(0)
    expected = sum(w * z.softmax(1) for w, z in zip(shares, three, strict=True))
    torch.testing.assert_close(losses.mixture(three, weights).exp(), expected)
    # the cross-entropy with the mean of probabilities is the mean of the cross-entropies
    log_q = S.log_softmax(1)
    ce = [-(z.softmax(1) * log_q).sum(1).mean() for z in three]
    mean = losses.mixture(three, torch.zeros(3).double())
    torch.testing.assert_close(-(mean.exp() * log_q).sum(1).mean(), sum(ce) / 3)
    torch.testing.assert_close(losses.kd(S, losses.mixture(torch.stack([T, T]), weights[:2])), losses.kd(S, T))
    assert not torch.allclose(mean.exp(), three.mean(0).softmax(1), atol=1e-2)


def test_kd_is_the_cross_entropy_less_the_teachers_entropy():
    p, log_q = (T / 4).softmax(1), (S / 4).log_softmax(1)
    cross, entropy = -(p * log_q).sum(1).mean(), -(p * p.log()).sum(1).mean()
    torch.testing.assert_close(losses.kd(S, T), 16 * (cross - entropy))


def test_a_correlation_is_half_the_mse_of_standardised_rows():
    from nas_kd.losses._common import pearson

    q, p = (S / 4).softmax(1), (T / 4).softmax(1)
    a, b = ((x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True, unbiased=False) for x in (q, p))
    torch.testing.assert_close(1 - pearson(q, p), (a - b).square().mean(1) / 2)
    scale = torch.linspace(0.1, 5, 16, dtype=torch.float64)[:, None]
    torch.testing.assert_close(pearson(scale * q + 3, p), pearson(q, p))  # a positive affine map of each row
