"""Losses of critics and generators: adversarial distillation, and images generated without data."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nas_kd.config.kinds import checked
from nas_kd.losses._common import logit_pair, one_of, wide
from nas_kd.losses.divergence import kl_of_log


@checked
def logit_l1(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean absolute difference of the logits, over batch and classes.

    Args:
        student, teacher: (B, C) logits.

    Source: Xu et al., arXiv 1709.00513, eq. 3; Fang et al., arXiv 1912.11006, eq. 4.
    """
    s, t = logit_pair(student, teacher)
    return F.l1_loss(s, t)


@checked
def critic(real: Tensor, fake: Tensor) -> Tensor:
    """Loss of a critic: binary cross-entropy of teacher (real) against student (fake).

    Args:
        real: (B,) logits of the critic on the teacher's logits.
        fake: (B,) logits of the critic on the student's logits.

    Returns:
        Scalar; 2 log 2 for the best critic of a student that equals its teacher.

    Source: Goodfellow et al., arXiv 1406.2661, eq. 1, as Xu et al., arXiv 1709.00513, eq. 5.
    """
    return F.softplus(-wide(real)).mean() + F.softplus(wide(fake)).mean()


@checked
def fooled(fake: Tensor) -> Tensor:
    """Loss of a student under a critic: to be classified as the teacher; (B,) logits to a scalar."""
    return F.softplus(-wide(fake)).mean()


@checked
def one_hot(teacher: Tensor) -> Tensor:
    """Uncertainty of a teacher on generated images: cross-entropy with its own predicted class.

    Args:
        teacher: (B, C) logits, through which a gradient flows to the images.

    Returns:
        Scalar, the mean of logsumexp - max.

    Source: Chen et al., Data-free learning of student networks, arXiv 1904.01186, eq. 2.
    """
    z = wide(teacher)
    return (z.logsumexp(1) - z.amax(1)).mean()


@checked
def activation(feature: Tensor) -> Tensor:
    """Minus the mean magnitude of a teacher's feature on generated images.

    Args:
        feature: (B, D) pooled feature.

    Returns:
        Scalar, at most 0.

    Source: Chen et al., arXiv 1904.01186, eq. 3.
    """
    return -wide(feature).abs().mean()


@checked
def balance(teacher: Tensor, base: float = math.e) -> Tensor:
    """Class imbalance of generated images: minus the entropy of the mean predicted distribution.

    Args:
        teacher: (B, C) logits.
        base: of the logarithm; DAFL's code has 10.

    Returns:
        Scalar, at least -log C, reached by a uniform distribution.

    Source: Chen et al., arXiv 1904.01186, eq. 4.
    """
    z = wide(teacher)
    log_mean = z.log_softmax(1).logsumexp(0) - math.log(len(z))
    return (log_mean.exp() * log_mean).sum() / math.log(base)


@checked
def disagreement(student: Tensor, teacher: Tensor, kind: str = "kl") -> Tensor:
    """Loss of a generator that looks for images on which student and teacher differ: minus their distance.

    Args:
        student: (B, C) logits.
        teacher: (B, C) logits; neither is detached, because the gradient flows to the images.
        kind: "kl" of the distributions (ZSKT, DFQ), or "l1" of the logits (DFAD).

    Returns:
        Scalar, at most 0.

    Source: Micaelli and Storkey, arXiv 1905.09768, eq. 1; Fang et al., arXiv 1912.11006, eq. 5.
    """
    one_of("kind", kind, ("kl", "l1"))
    s = wide(student)
    t = wide(teacher)
    if kind == "l1":
        return -F.l1_loss(s, t)
    return -kl_of_log(t.log_softmax(1), s.log_softmax(1)).mean()


@checked
def norm_statistics(found: Sequence[tuple[Tensor, Tensor]], kept: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Distance of generated images' statistics from the running statistics of a teacher's batch norms.

    Args:
        found: (C,) mean and variance of every norm's input.
        kept: (C,) running mean and variance of every norm.

    Returns:
        Scalar, the sum of the Euclidean distances of means and of variances.

    Source: Yin et al., Dreaming to distill, arXiv 1912.08795, eq. 4.
    """
    parts = [
        (wide(mean) - wide(own_mean)).norm() + (wide(variance) - wide(own_variance)).norm()
        for (mean, variance), (own_mean, own_variance) in zip(found, kept, strict=True)
    ]
    return torch.stack(parts).sum()
