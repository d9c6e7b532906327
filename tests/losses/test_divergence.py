"""Divergences against closed forms, autograd in float64 and the published surrogate gradient."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from toys import grad

from nas_kd import losses
from nas_kd.errors import SettingError


def draw(*shape: int, seed: int = 0, scale: float = 1.5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64) * scale


def naive_alpha(s: Tensor, t: Tensor, alpha: float) -> Tensor:
    """The definition, for autograd: no log-space, no limits."""
    q, p = s.softmax(1), t.softmax(1)
    if alpha == 1:
        return (p * (p / q).log()).sum(1).mean()
    if alpha == 0:
        return (q * (q / p).log()).sum(1).mean()
    return ((q * (p / q) ** alpha).sum(1) - 1).mean() / (alpha * (alpha - 1))


def alphanet_surrogate(s: Tensor, t: Tensor, alpha: float, clip: float) -> tuple[Tensor, Tensor]:
    """Value and score-function surrogate a sample as published, with its thresholds."""
    q, p, log_q = s.softmax(1).detach(), t.softmax(1), s.log_softmax(1)
    ratio = p / q
    if abs(alpha) < 1e-3:
        ratio = ratio.clamp(0, clip)
        f, base, rho = -ratio.log(), 0.0, ratio.log() - 1
    elif abs(alpha - 1) < 1e-3:
        f, base, rho = ratio * ratio.log(), 0.0, ratio
    else:
        power = (ratio**alpha).clamp(0, clip)
        base = 1 / alpha / (alpha - 1)
        f, rho = power * base, power / alpha + base
    return (q * (f - base)).sum(1), -(q * rho * log_q).sum(1)


S, T = draw(16, 10), draw(16, 10, seed=1)
ORDERS = [-2, -1, -0.5, -1e-4, 0, 1e-4, 0.3, 0.5, 0.9, 0.9995, 1, 1.0005, 1.5, 2, 3]


def test_kl_equals_torch_and_has_the_soft_target_gradient():
    expected = F.kl_div(S.log_softmax(1), T.softmax(1), reduction="batchmean")
    torch.testing.assert_close(losses.kl_divergence(S, T), expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(grad(losses.kl_divergence, S, T), (S.softmax(1) - T.softmax(1)) / 16, rtol=0, atol=1e-15)
    entropy = -(T.softmax(1) * T.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(losses.kl_divergence(S, T) + entropy, F.cross_entropy(S, T.softmax(1)))


@pytest.mark.parametrize("loss", [losses.kl_divergence, losses.reverse_kl, losses.js_divergence])
def test_gradients_are_their_closed_forms(loss):
    """By the student's logits: q - p for KL, q (log q/p - KL) for its reverse, half of it from the mean for JS."""
    log_q, log_p = S.log_softmax(1), T.log_softmax(1)
    q, p = log_q.exp(), log_p.exp()
    if loss is losses.kl_divergence:
        expected = q - p
    else:
        other = log_p if loss is losses.reverse_kl else ((p + q) / 2).log()
        ratio = log_q - other
        expected = q * (ratio - (q * ratio).sum(1, keepdim=True))
        expected = expected / 2 if loss is losses.js_divergence else expected
    torch.testing.assert_close(grad(loss, S, T), expected / 16, rtol=1e-12, atol=1e-16)


DIVERGENCES = [
    losses.kl_divergence,
    losses.reverse_kl,
    losses.js_divergence,
    *(partial(losses.alpha_divergence, alpha=a) for a in (-2.0, -1.0, 0.3, 0.5, 2.0, 3.0)),
    *(partial(losses.alpha_divergence, alpha=a, clip=5.0) for a in (-1.0, 0.5)),
    losses.adaptive_alpha_divergence,
    partial(losses.adaptive_alpha_divergence, choose="unclipped"),
]


@pytest.mark.parametrize("loss", DIVERGENCES)
def test_they_are_zero_for_equal_distributions_only(loss):
    for shift in (0.0, 3.0):  # logits are equal up to a constant
        assert loss(S + shift, S).abs() < 1e-15
        assert grad(loss, S + shift, S).abs().max() < 1e-15
    for row in range(16):
        assert loss(S[row : row + 1], T[row : row + 1]) > 1e-3


@pytest.mark.parametrize("loss", DIVERGENCES)
def test_nothing_flows_to_the_teacher(loss):
    student, teacher = S.clone().requires_grad_(), T.clone().requires_grad_()
    loss(student, teacher).backward()
    assert teacher.grad is None and student.grad is not None and student.grad.abs().max() > 0


@pytest.mark.parametrize("loss", DIVERGENCES)
def test_a_step_against_the_gradient_brings_the_distributions_together(loss):
    student = S.clone()
    for _ in range(200):
        student -= 0.5 * 16 * grad(loss, student, T).clamp(-0.05, 0.05)
    assert losses.js_divergence(student, T) < 0.1 * losses.js_divergence(S, T)


def test_reverse_and_js():
    torch.testing.assert_close(losses.reverse_kl(S, T), losses.kl_divergence(T, S))
    q, p = S.softmax(1), T.softmax(1)
    m = (p + q) / 2
    expected = ((p * (p / m).log()).sum(1) + (q * (q / m).log()).sum(1)).mean() / 2
    torch.testing.assert_close(losses.js_divergence(S, T), expected)
    torch.testing.assert_close(losses.js_divergence(S, T), losses.js_divergence(T, S))
    far = torch.tensor([[1e4, 0.0]])
    torch.testing.assert_close(losses.js_divergence(far, far.flip(1)), torch.tensor(math.log(2)))
    for loss in (losses.reverse_kl, losses.js_divergence):
        assert torch.autograd.gradcheck(lambda s, loss=loss: loss(s, T), S.clone().requires_grad_())


@pytest.mark.parametrize("loss", [losses.kl_divergence, losses.reverse_kl, losses.js_divergence])
def test_classes_that_both_exclude_count_nothing(loss):
    s, t = S.clone(), T.clone()
    s[:, 3] = t[:, 3] = float("-inf")
    keep = [c for c in range(10) if c != 3]
    torch.testing.assert_close(loss(s, t), loss(s[:, keep], t[:, keep]))
    assert torch.isfinite(grad(losses.kl_divergence, s, t)).all()


@pytest.mark.parametrize("alpha", ORDERS)
def test_alpha_equals_its_definition_and_autograd(alpha):
    value = losses.alpha_divergence(S, T, alpha)
    loose = min(abs(alpha), abs(alpha - 1)) < 1e-2 and alpha not in (0, 1)  # the definition cancels there
    rtol = 1e-7 if loose else 1e-10
    torch.testing.assert_close(value, naive_alpha(S, T, alpha), rtol=rtol, atol=1e-12)
    leaf = S.clone().requires_grad_()
    (expected,) = torch.autograd.grad(naive_alpha(leaf, T, alpha), leaf)
    torch.testing.assert_close(grad(losses.alpha_divergence, S, T, alpha), expected, rtol=rtol, atol=1e-12)


@pytest.mark.parametrize("alpha", [-1, 0, 0.5, 1, 2])
def test_alpha_gradient_is_the_numerical_one(alpha):
    assert torch.autograd.gradcheck(lambda s: losses.alpha_divergence(s, T[:3], alpha), S[:3].clone().requires_grad_())


def test_alpha_special_orders():
    q, p = S.softmax(1), T.softmax(1)
    alpha = losses.alpha_divergence
    torch.testing.assert_close(alpha(S, T, 1), losses.kl_divergence(S, T))
    torch.testing.assert_close(alpha(S, T, 0), losses.reverse_kl(S, T))
    torch.testing.assert_close(alpha(S, T, 0.5), 4 * (1 - (p * q).sqrt().sum(1)).mean())
    torch.testing.assert_close(alpha(S, T, 2), ((p - q) ** 2 / q).sum(1).mean() / 2)
    torch.testing.assert_close(alpha(S, T), ((p - q) ** 2 / p).sum(1).mean() / 2)  # the default is -1
    for order in (-1.0, 0.25, 2.0):
        torch.testing.assert_close(alpha(S, T, order), alpha(T, S, 1 - order))
    gap = [abs(float(alpha(S, T, 1 - step) - alpha(S, T, 1))) for step in (1e-2, 1e-4, 1e-6, 1e-8)]
    assert all(later < earlier / 50 for earlier, later in zip(gap, gap[1:], strict=False))
    for order in ORDERS:
        assert float(alpha(S, S, order)) == 0
        assert grad(alpha, S, S, order).abs().max() == 0


@pytest.mark.parametrize("alpha", [-1, -1e-5, 1e-5, 0.4999, 0.9999, 1.00001])
def test_alpha_keeps_its_precision_in_fp32(alpha):
    wide, narrow = losses.alpha_divergence(S, T, alpha), losses.alpha_divergence(S.float(), T.float(), alpha)
    torch.testing.assert_close(narrow.double(), wide, rtol=2e-6, atol=0)
    gradient = grad(losses.alpha_divergence, S.float(), T.float(), alpha).double()
    torch.testing.assert_close(gradient, grad(losses.alpha_divergence, S, T, alpha), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("alpha", [-1, 0, 0.5, 1, 2])
def test_true_alpha_is_never_nan(alpha, dtype):
    for scale in (1.0, 200.0, 1e4):
        s, t = (draw(8, 100, seed=seed).clamp(-1, 1).mul(scale).to(dtype) for seed in (2, 3))
        value = losses.alpha_divergence(s, t, alpha)
        assert value >= 0 and not value.isnan()
        assert torch.isfinite(grad(losses.alpha_divergence, s.float(), t, alpha)).all()
    masked = torch.tensor([[0.0, float("-inf")]], dtype=dtype)
    assert not losses.alpha_divergence(masked, torch.zeros(1, 2), alpha).isnan()
    assert losses.alpha_divergence(masked, masked, alpha) == 0
    assert losses.alpha_divergence(torch.tensor([[1e4, 0.0]]), torch.tensor([[0.0, 1e4]]), -1) == math.inf


@pytest.mark.parametrize("clip", [1.5, 5.0, 50.0])
@pytest.mark.parametrize("alpha", [-1, -0.5, 0, 5e-4, 0.5, 0.9, 1, 2])
def test_clipped_alpha_has_the_published_value_and_gradient(alpha, clip):
    s = (3 * S).requires_grad_()
    value, surrogate = alphanet_surrogate(s, T, 0 if abs(alpha) < 1e-3 else alpha, clip)
    expected = value.clamp_min(0).mean()
    torch.testing.assert_close(losses.alpha_divergence(s, T, alpha, clip), expected.detach(), check_dtype=True)
    (gradient,) = torch.autograd.grad(surrogate.mean(), s)
    torch.testing.assert_close(grad(losses.alpha_divergence, s, T, alpha, clip=clip), gradient)


def test_clip_bounds_the_value_at_minus_one():
    s, t = draw(64, 100, seed=4, scale=20), draw(64, 100, seed=5, scale=20)
    for clip in (1.0, 2.0, 5.0):
        assert 0 <= losses.alpha_divergence(s, t, -1, clip) <= (clip - 1) / 2 + 1e-12
    assert grad(losses.alpha_divergence, s[:1], t[:1], -1, clip=5.0).abs().max() <= 5


def test_adaptive_is_alphanets_choice_of_surrogates():
    s = (2 * S).requires_grad_()
    left, left_surrogate = alphanet_surrogate(s, T, -1, 5)
    right, right_surrogate = alphanet_surrogate(s, T, 1, 5)
    take = left > right
    assert 0 < take.sum() < len(take)
    (gradient,) = torch.autograd.grad(torch.where(take, left_surrogate, right_surrogate).mean(), s)
    torch.testing.assert_close(grad(losses.adaptive_alpha_divergence, s, T), gradient)
    value = losses.adaptive_alpha_divergence(s, T)
    torch.testing.assert_close(value, torch.maximum(left, right).mean())  # the divergence, not the surrogate


def test_clipped_values_below_0_are_compared_as_they_are():
    """AlphaNet's clipped sums may be negative, mostly for orders above 1: shown as 0, chosen as there."""
    s = (2 * S).requires_grad_()
    left, left_surrogate = alphanet_surrogate(s, T, -1, 1.1)
    right, right_surrogate = alphanet_surrogate(s, T, 2, 1.1)
    assert right.max() < 0 and 0 < ((left > right) & (left < 0)).sum()
    value = losses.adaptive_alpha_divergence(s, T, alpha_max=2.0, clip=1.1)
    torch.testing.assert_close(value, torch.maximum(left, right).clamp_min(0).mean())
    (gradient,) = torch.autograd.grad(torch.where(left > right, left_surrogate, right_surrogate).mean(), s)
    torch.testing.assert_close(grad(losses.adaptive_alpha_divergence, s, T, alpha_max=2.0, clip=1.1), gradient)


def test_adaptive_is_kl_where_kl_exceeds_the_clipped_bound():
    s, t = draw(200, 50, seed=6, scale=2.5), draw(200, 50, seed=7, scale=2.5)
    kl = torch.stack([losses.kl_divergence(a[None], b[None]) for a, b in zip(s, t, strict=True)])
    far = kl > 2.0  # (clip - 1) / 2
    assert far.sum() > 20
    adaptive, plain = grad(losses.adaptive_alpha_divergence, s, t), grad(losses.kl_divergence, s, t)
    torch.testing.assert_close(adaptive[far], plain[far], rtol=0, atol=1e-15)
    apart = grad(losses.adaptive_alpha_divergence, s, t, choose="unclipped")
    assert not torch.allclose(apart[far], plain[far])  # the unclipped comparison takes the left there


def test_adaptive_picks_the_side_of_the_error():
    t = draw(64, 20, seed=8)
    factors = ((0.5, -1), (0.7, -1), (0.9, -1), (1.1, 1), (1.3, 1), (2.0, 1))
    for choose in ("clipped", "unclipped"):
        for factor, order in factors:  # an under-confident student: left; over-confident: right
            student = factor * t
            torch.testing.assert_close(
                grad(losses.adaptive_alpha_divergence, student, t, choose=choose),
                grad(losses.alpha_divergence, student, t, order, clip=5.0),
            )


@pytest.mark.parametrize("choose", ["clipped", "unclipped"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_adaptive_is_finite_and_not_negative(dtype, choose):
    cases = [(draw(32, 1000, seed=9, scale=k), draw(32, 1000, seed=10, scale=k)) for k in (0.1, 4, 50)]
    cases += [(k * draw(32, 1000, seed=9).sign(), k * draw(32, 1000, seed=10).sign()) for k in (200, 1e4)]
    peak = torch.tensor([[1e4, 0.0, -1e4]])
    cases += [(peak, peak), (peak, peak.flip(1)), (200 * peak / 1e4, -200 * peak / 1e4), (S, S)]
    for s, t in cases:
        leaf = s.to(dtype).requires_grad_()
        value = losses.adaptive_alpha_divergence(leaf, t.to(dtype), choose=choose)
        value.backward()
        assert value.dtype == torch.float32 and torch.isfinite(value) and value >= 0
        assert leaf.grad is not None and torch.isfinite(leaf.grad).all()
        assert leaf.grad.abs().max() <= 5
    near = draw(64, 10, seed=11).to(dtype)
    assert losses.adaptive_alpha_divergence(near, near + 1e-4 * draw(64, 10, seed=12).to(dtype)) >= 0


def test_fp16_gradient_is_close_to_float64():
    s, t = (draw(64, 1000, seed=seed, scale=2).half() for seed in (13, 14))
    half = grad(losses.adaptive_alpha_divergence, s, t).double()
    exact = grad(losses.adaptive_alpha_divergence, s.double(), t.double())
    assert (half - exact).norm() / exact.norm() < 2e-3


def test_a_zero_order_is_not_ignored_and_settings_are_checked():
    zero = losses.adaptive_alpha_divergence(S, T, alpha_min=0, alpha_max=1)
    assert zero != losses.adaptive_alpha_divergence(S, T)
    for settings in ({"alpha_min": 1.0}, {"clip": 0.5}, {"choose": "unclippd"}, {"alpha_max": math.inf}):
        with pytest.raises(SettingError):
            losses.adaptive_alpha_divergence(S, T, **settings)
    with pytest.raises(SettingError, match="did you mean 'unclipped'"):
        losses.adaptive_alpha_divergence(S, T, choose="unclippd")
    with pytest.raises(SettingError, match="alpha"):
        losses.alpha_divergence(S, T, math.nan)
