"""Losses of several labels an image, each of which is true or not by itself: a distribution a label."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nas_kd.config.kinds import checked
from nas_kd.losses._common import logit_pair
from nas_kd.losses.divergence import kl_divergence


@checked
def per_label(loss: Callable[..., Tensor], student: Tensor, teacher: Tensor, **settings: Any) -> Tensor:
    """Any loss of two class distributions, on the two classes of every label: true and not.

    Args:
        loss: such as :func:`js_divergence`, of (N, 2) logits.
        student, teacher: (B, L) logits of a sigmoid each.
        settings: keywords of the loss.

    Returns:
        Scalar, the mean over batch and labels. With :func:`kd` the Bernoulli KL of sigmoids at a temperature.

    Source: Yang et al., Multi-label knowledge distillation, arXiv 2308.06453: one binary problem a label.
    """
    s, t = logit_pair(student, teacher)
    return loss(_two_classes(s), _two_classes(t), **settings)


def _two_classes(logits: Tensor) -> Tensor:
    """Return (B L, 2) logits whose softmax is the sigmoid of (B, L) logits and its rest."""
    flat = logits.flatten()
    return torch.stack([flat, torch.zeros_like(flat)], 1)


@checked
def bernoulli_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL of the teacher's Bernoulli distributions from the student's, the mean over batch and labels.

    Args:
        student, teacher: (B, L) logits of a sigmoid each.

    Returns:
        Scalar in nats a label.
    """
    return per_label(kl_divergence, student, teacher)
