"""Divergences between the class distributions of two sets of logits.

Throughout, p = softmax(teacher), q = softmax(student), delta = log p - log q.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from nas_kd.config.kinds import checked
from nas_kd.errors import SettingError, nearest
from nas_kd.losses._common import logit_pair

_FLOOR = -1e30  # represents log 0: unlike -inf, differences and multiples of it are never NaN
_CEILING = 1e30  # largest gradient of an unclipped divergence, far beyond anything an optimiser can use
_NEAR = 1e-3  # AlphaNet's distance from 0 and from 1 within which another clipping rule holds
_CHOICES = ("clipped", "unclipped")


def kl_of_log(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) of each row; every loss that needs a KL calls this one.

    Args:
        log_p: (..., C) log-probabilities of the weighting distribution.
        log_q: (..., C) log-probabilities of the other.

    Returns:
        (...) sum_c p (log p - log q); classes with p = 0 count 0 even where q = 0 too.
    """
    p = log_p.exp()
    return (p * torch.where(p > 0, log_p - log_q, 0.0)).sum(-1)


@checked
def kl_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(p || q) of the teacher's distribution from the student's, the mean over the batch.

    Args:
        student, teacher: (B, C) logits.

    Returns:
        Scalar in nats, divided by B and never by C.

    Raises:
        ValueError: shapes differ or are not (B, C).
    """
    s, t = logit_pair(student, teacher)
    return kl_of_log(t.log_softmax(1), s.log_softmax(1)).mean()


@checked
def reverse_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(q || p): penalises a student that is confident where the teacher is not.

    Args:
        student, teacher: (B, C) logits.

    Returns:
        Scalar in nats.
    """
    s, t = logit_pair(student, teacher)
    return kl_of_log(s.log_softmax(1), t.log_softmax(1)).mean()


@checked
def js_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Jensen-Shannon divergence, the mean KL of p and q from their mean.

    Args:
        student, teacher: (B, C) logits.

    Returns:
        Scalar in 0 .. log 2 nats.
    """
    s, t = logit_pair(student, teacher)
    log_q = s.log_softmax(1)
    log_p = t.log_softmax(1)
    middle = torch.logaddexp(log_p, log_q) - math.log(2)
    return (kl_of_log(log_p, middle) + kl_of_log(log_q, middle)).mean() / 2


@checked
def alpha_divergence(student: Tensor, teacher: Tensor, alpha: float = -1.0, clip: float | None = None) -> Tensor:
    """The alpha-divergence D(p || q) = sum_c q ((p/q)^alpha - 1) / (alpha (alpha - 1)).

    alpha 1 is KL(p || q), 0 is KL(q || p), 0.5 four times the squared Hellinger distance, 2 and -1 half the
    chi-square distances. Negative values penalise a student that is confident where the teacher is not.

    Args:
        student, teacher: (B, C) logits.
        alpha: any finite number.
        clip: largest (p/q)^alpha, at least 1, in value and gradient alike. As in AlphaNet's code it bounds p/q itself
            at alpha = 0 and nothing at alpha = 1. None: the true divergence.

    Returns:
        Scalar >= 0. Without clip it may be inf, but never NaN, and the gradient stays finite. A clip can bring the sum
        below 0, mostly for alpha above 1: AlphaNet's code then returns the negative number, this 0 in its place, with
        the same gradient.

    Raises:
        SettingError: alpha is not finite or clip is below 1.

    Source: Wang et al., AlphaNet, arXiv 2102.07954, eq. 4 to 6.
    """
    s, t = logit_pair(student, teacher)
    value, gradient = _alpha(s, t, alpha, clip)
    return _WithGradient.apply(s, value.clamp_min(0), gradient).mean()


@checked
def adaptive_alpha_divergence(
    student: Tensor,
    teacher: Tensor,
    alpha_min: float = -1.0,
    alpha_max: float = 1.0,
    clip: float = 5.0,
    choose: str = "clipped",
) -> Tensor:
    """The larger of two clipped alpha-divergences, chosen for every sample.

    alpha_min penalises an over-confident student, alpha_max an under-confident one. The value is the chosen
    divergence itself; the gradient is AlphaNet's with the clipped ratio. With alpha_min = -1 the left
    value cannot exceed (clip - 1) / 2, so that "clipped" is plain KL wherever KL exceeds that.

    Args:
        student: (B, C) logits, up to 1e4 in any floating dtype.
        teacher: (B, C) logits.
        alpha_min: the left order.
        alpha_max: the right order, above alpha_min.
        clip: largest (p/q)^alpha, at least 1; see :func:`alpha_divergence`.
        choose: "clipped" compares the clipped values as AlphaNet does, "unclipped" the true ones; both then train with
            the clipped.

    Returns:
        Scalar, finite and >= 0.

    Raises:
        SettingError: a setting is outside its range.

    Source: Wang et al., AlphaNet, arXiv 2102.07954, eq. 7 and 8.
    """
    if choose not in _CHOICES:
        raise SettingError("choose", choose, " or ".join(_CHOICES), nearest(str(choose), _CHOICES))
    if not alpha_min < alpha_max:
        raise SettingError("alpha_min", alpha_min, f"below alpha_max={alpha_max}")
    s, t = logit_pair(student, teacher)
    left, left_gradient = _alpha(s, t, alpha_min, clip)
    right, right_gradient = _alpha(s, t, alpha_max, clip)
    if choose == "clipped":
        take_left = left > right
    else:
        take_left = _alpha(s, t, alpha_min, None)[0] > _alpha(s, t, alpha_max, None)[0]
    value = torch.where(take_left, left, right).clamp_min(0)
    gradient = torch.where(take_left[:, None], left_gradient, right_gradient)
    return _WithGradient.apply(s, value, gradient).mean()


@torch.no_grad()
def _alpha(s: Tensor, t: Tensor, alpha: float, clip: float | None) -> tuple[Tensor, Tensor]:
    """Values (B,) of the alpha-divergence and their gradients (B, C) by the student's logits.

    Rounding, and a clip, may leave a value below 0; which of two is larger is decided on these, as AlphaNet does.
    """
    alpha = float(alpha)
    if not math.isfinite(alpha):
        raise SettingError("alpha", alpha, "a finite number")
    if clip is not None and not 1 <= clip < math.inf:
        raise SettingError("clip", clip, "a finite number of at least 1, or None")
    log_q = s.log_softmax(1).clamp_min(_FLOOR)
    log_p = t.log_softmax(1).clamp_min(_FLOOR)
    delta = log_p - log_q
    clipped = clip is not None and abs(alpha - 1) >= _NEAR
    if clip is not None and clipped:
        if abs(alpha) < _NEAR:
            alpha = 0.0
            limit = math.log(clip)
        else:
            limit = math.log(clip) / alpha
        delta = delta.clamp_min(limit) if alpha < 0 else delta.clamp_max(limit)
    moved = _scaled_expm1(log_q, delta, alpha)  # (B, C): q ((p/q)^alpha - 1) / alpha
    if clipped or alpha < 0.5:
        value = moved.sum(1) / (alpha - 1)
    else:  # the same sum with weights p: exact as alpha goes to 1, where the other is 0 / 0
        value = _scaled_expm1(log_p, delta, alpha - 1).sum(1) / alpha
    # score function: dD/dlog q = -moved up to a multiple of q, which log_softmax's gradient removes
    moved = moved.clamp(-_CEILING, _CEILING)
    gradient = log_q.exp() * moved.sum(1, keepdim=True) - moved
    return value, gradient


def _scaled_expm1(log_weight: Tensor, delta: Tensor, power: float) -> Tensor:
    """w (e^(power delta) - 1) / power with w = e^log_weight; its limit w delta at power 0."""
    weight = log_weight.exp()
    if power == 0:
        return weight * delta
    x = power * delta
    # small x would cancel in the second form, large x would give 0 * inf in the first
    return torch.where(x.abs() < 1, weight * x.expm1(), (log_weight + x).exp() - weight) / power


class _WithGradient(torch.autograd.Function):
    """Gives values an explicit gradient: autograd through an overflowed exp would be NaN."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return upstream[:, None] * gradient, None, None
