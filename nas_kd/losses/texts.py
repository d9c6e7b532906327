"""Losses on the layers of text encoders: hidden states (B, L, D) and attention; means are over tokens that are real.

Padding is left out by ``mask`` (B, L), true where a token is real: a mean over padded tensors would weigh long texts
more and compare what a network makes of padding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nas_kd.config.kinds import checked
from nas_kd.losses._common import full_precision, same_shape, wide


@checked
def hidden_mse(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Mean squared difference of hidden states.

    Args:
        student: (B, L, D), after its projection if it has one.
        teacher: (B, L, D).
        mask: (B, L) bool.

    Returns:
        Scalar, the mean over real tokens and dimensions.

    Source: Jiao et al., TinyBERT, arXiv 1909.10351, eq. 8; Sun et al., MobileBERT, arXiv 2004.02984, eq. 1.
    """
    s, t = same_shape(student, teacher)
    return _mean((s - t).square().mean(-1), mask)


@checked
def hidden_cosine(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """One minus the cosine of hidden states.

    Args:
        student: (B, L, D).
        teacher: (B, L, D).
        mask: (B, L) bool.

    Returns:
        Scalar, the mean over real tokens.

    Source: Sanh et al., DistilBERT, arXiv 1910.01108, section 3.
    """
    s, t = same_shape(student, teacher)
    return _mean(1.0 - F.cosine_similarity(s, t, dim=-1), mask)


@checked
def feature_moments(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Squared differences of mean and variance of each token's hidden state.

    Args:
        student: (B, L, D); the dimensions may differ.
        teacher: (B, L, D').
        mask: (B, L) bool.

    Returns:
        Scalar, the mean over real tokens of both differences together.

    Source: Sun et al., MobileBERT, arXiv 2004.02984, section 3.4: statistics of feature maps apart.
    """
    if student.shape[:2] != teacher.shape[:2]:
        raise ValueError(f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)} must have the same tokens")
    s = wide(student)
    t = teacher.detach().to(s.dtype)
    means = (s.mean(-1) - t.mean(-1)).square()
    variances = (s.var(-1, unbiased=False) - t.var(-1, unbiased=False)).square()
    return _mean(means + variances, mask)


@checked
def normalised_states(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance of states that are divided by their lengths.

    Args:
        student: (B, D) states of the first token.
        teacher: (B, D).

    Returns:
        Scalar, the mean over the batch of the sum over dimensions: 0 to 4.

    Source: Sun et al., Patient Knowledge Distillation, arXiv 1908.09355, eq. 7.
    """
    s, t = same_shape(student, teacher)
    return (F.normalize(s, dim=-1) - F.normalize(t, dim=-1)).square().sum(-1).mean()


@checked
def attention_mse(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Mean squared difference of attention scores before the softmax.

    Args:
        student: (B, H, L, L) scores of H heads.
        teacher: (B, H', L, L); where the numbers of heads differ, their means over heads are compared.
        mask: (B, L) bool.

    Returns:
        Scalar, the mean over heads and over pairs of real tokens.

    Source: Jiao et al., TinyBERT, arXiv 1909.10351, eq. 7.
    """
    if student.shape[1] != teacher.shape[1]:
        student, teacher = (scores.mean(1, keepdim=True) for scores in (student, teacher))
    s, t = same_shape(student, teacher)
    pairs = mask[:, None, :, None] & mask[:, None, None, :]  # (B, 1, L, L)
    return _mean((s - t).square(), pairs.expand_as(s))


@checked
def attention_kl(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """KL from the teacher's to the student's attention, a row a token that looks, in nats.

    Args:
        student: (B, H, L, L) scores before the softmax.
        teacher: (B, H, L, L).
        mask: (B, L) bool; padding is neither looked at nor looks.

    Returns:
        Scalar, the mean over heads and real tokens.

    Source: Sun et al., MobileBERT, arXiv 2004.02984, eq. 2; Wang et al., MiniLM, arXiv 2002.10957, eq. 6.
    """
    s, t = same_shape(student, teacher)
    hidden = ~mask[:, None, None, :]
    s = s.masked_fill(hidden, -torch.inf).log_softmax(-1).masked_fill(hidden, 0.0)
    t = t.masked_fill(hidden, -torch.inf).log_softmax(-1).masked_fill(hidden, 0.0)
    rows = (t.exp().masked_fill(hidden, 0.0) * (t - s)).sum(-1)  # (B, H, L)
    return _mean(rows, mask[:, None].expand_as(rows))


def products(first: Tensor, second: Tensor) -> Tensor:
    """Return scaled products of all pairs of tokens, such as attention scores or relations of values.

    Args:
        first: (B, H, L, W).
        second: (B, H, L, W).

    Returns:
        (B, H, L, L), divided by the root of W.
    """
    a = wide(first)
    with full_precision(a):
        return a @ wide(second).transpose(-1, -2) / a.shape[-1] ** 0.5


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of those values that the mask, of their shape, lets through."""
    return values.masked_fill(~mask, 0.0).sum() / mask.sum().clamp_min(1)
