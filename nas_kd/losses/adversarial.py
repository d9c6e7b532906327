"""Losses of critics and generators: of a game between networks, and of images made without data."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nas_kd.losses._common import logit_pair, wide, word
from nas_kd.losses.divergence import kl_of_log


def logit_l1(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean absolute difference of the logits, over batch and classes.

    Args:
        student, teacher: (B, C) logits.

    Returns:
        Scalar.

    Source: Xu et al., arXiv 1709.00513, eq. 3; Fang et al., arXiv 1912.11006, eq. 4.
    """
    s, t = logit_pair(student, teacher)
    return F.l1_loss(s, t)


def critic(real: Tensor, fake: Tensor) -> Tensor:
    """What a critic learns from: the cross-entropy of telling teacher from student.

    Args:
        real: (B,) its logits on the teacher's answers.
        fake: (B,) its logits on the student's.

    Returns:
        Scalar; 2 log 2 for the best critic of a student that cannot be told from its teacher.

    Source: Goodfellow et al., arXiv 1406.2661, eq. 1, as Xu et al., arXiv 1709.00513, eq. 5.
    """
    return F.softplus(-wide(real)).mean() + F.softplus(wide(fake)).mean()


def fooled(fake: Tensor) -> Tensor:
    """What a student learns from a critic: to be taken for the teacher; (B,) logits to a scalar."""
    return F.softplus(-wide(fake)).mean()


def one_hot(teacher: Tensor) -> Tensor:
    """How unsure a teacher is of made images: the cross-entropy with its own likeliest class.

    Args:
        teacher: (B, C) logits, through which a gradient flows to the images.

    Returns:
        Scalar, the mean of logsumexp - max.

    Source: Chen et al., Data-free learning of student networks, arXiv 1904.01186, eq. 2.
    """
    z = wide(teacher)
    return (z.logsumexp(1) - z.amax(1)).mean()


def activation(feature: Tensor) -> Tensor:
    """How little made images excite a teacher: minus the mean magnitude of its feature.

    Args:
        feature: (B, D) pooled feature.

    Returns:
        Scalar, at most 0.

    Source: Chen et al., arXiv 1904.01186, eq. 3.
    """
    return -wide(feature).abs().mean()


def balance(teacher: Tensor) -> Tensor:
    """How unevenly made images fall on the classes: minus the entropy of their mean distribution.

    Args:
        teacher: (B, C) logits.

    Returns:
        Scalar, at least -log C, which even classes reach.

    Source: Chen et al., arXiv 1904.01186, eq. 4.
    """
    z = wide(teacher)
    log_mean = z.log_softmax(1).logsumexp(0) - math.log(len(z))
    return (log_mean.exp() * log_mean).sum()


def disagreement(student: Tensor, teacher: Tensor, kind: str = "kl") -> Tensor:
    """What a generator shrinks to find images on which student and teacher differ: minus their distance.

    Args:
        student: (B, C) logits.
        teacher: (B, C) logits; neither is detached, for the gradient flows to the images.
        kind: "kl" of the distributions (ZSKT, DFQ), or "l1" of the logits (DFAD).

    Returns:
        Scalar, at most 0.

    Source: Micaelli and Storkey, arXiv 1905.09768, eq. 1; Fang et al., arXiv 1912.11006, eq. 5.
    """
    word("kind", kind, ("kl", "l1"))
    s = wide(student)
    t = wide(teacher)
    if kind == "l1":
        return -F.l1_loss(s, t)
    return -kl_of_log(t.log_softmax(1), s.log_softmax(1)).mean()


def norm_statistics(found: Sequence[tuple[Tensor, Tensor]], kept: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """How far made images' statistics are from those that a teacher's batch norms keep.

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
