"""Losses against labels, by what labels are: one class an image, several labels of 0 or 1, or real numbers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nas_kd.config.kinds import checked
from nas_kd.losses._common import wide

KINDS = ("classes", "multilabel", "regression")  # what labels are
CLASSES = ("classes",)
DISTRIBUTIONS = ("classes", "multilabel")  # labels that a network gives probabilities of


@checked
def label_loss(kind: str, logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    """Return the plain loss of a kind of labels, without smoothing or weights.

    Args:
        kind: one of `KINDS`.
        logits: (B, C).
        labels: (B,) class numbers, (B, C) of 0, 1 or NaN, or (B, C) numbers or NaN.
        reduction: ``mean``, or the ``sum`` over the images.

    Returns:
        Scalar.
    """
    if kind == "classes":
        return F.cross_entropy(logits, labels, reduction=reduction)
    loss = binary_cross_entropy if kind == "multilabel" else squared_error
    mean = loss(logits, labels)
    return mean if reduction == "mean" else mean * len(labels)


@checked
def binary_cross_entropy(
    logits: Tensor, labels: Tensor, smoothing: float = 0.0, positive_weights: Tensor | None = None
) -> Tensor:
    """Return the cross-entropy of one sigmoid a label, the mean over the labels that are known.

    Args:
        logits: (B, L) of any floating dtype; computed in fp32, float64 stays.
        labels: (B, L) 0 or 1, or shares between them; NaN, or below 0, where unknown.
        smoothing: share by which labels move towards a half.
        positive_weights: (L,) weight of a label of 1 against that of 0; None is 1.

    Returns:
        Scalar in nats a label; 0 if none is known.
    """
    z = wide(logits)
    known, y = _known(labels >= 0, labels, z)
    y = y * (1 - smoothing) + smoothing / 2
    weights = None if positive_weights is None else positive_weights.to(z)
    each = F.binary_cross_entropy_with_logits(z, y, pos_weight=weights, reduction="none")
    return (each * known).sum() / known.sum().clamp_min(1)


@checked
def squared_error(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the mean squared error over the values that are known.

    Args:
        outputs: (B, K) of any floating dtype; computed in fp32, float64 stays.
        labels: (B, K) numbers, NaN where unknown.

    Returns:
        Scalar; 0 if none is known.
    """
    z = wide(outputs)
    known, y = _known(torch.isfinite(labels), labels, z)
    return ((z - y).square() * known).sum() / known.sum().clamp_min(1)


def _known(known: Tensor, labels: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return which labels are known, and the labels with 0 where they are not, so that gradients stay finite."""
    if labels.shape != logits.shape:
        raise ValueError(f"labels {tuple(labels.shape)} must have the shape of the outputs, {tuple(logits.shape)}")
    return known, torch.where(known, labels, 0).to(logits.dtype)
