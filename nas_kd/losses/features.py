"""Losses on feature maps: (B, C, H, W), or tokens (B, N, C); the mean over the batch, a scalar."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nas_kd.config.kinds import checked
from nas_kd.losses._common import Gram, full_precision, one_of, pair, same_shape, wide

_TINY = 1e-24  # lower bound of squared norms in divisions


@checked
def fitnet(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of two features of the same shape.

    Args:
        student: (B, ...) feature, after its adapter if it has one.
        teacher: (B, ...) feature.

    Returns:
        Scalar, the mean over all elements.

    Raises:
        ValueError: the shapes differ.

    Source: Romero et al., FitNets, arXiv 1412.6550, eq. 3 (half the sum there).
    """
    s, t = same_shape(student, teacher)
    return F.mse_loss(s, t)


@checked
def normalised_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """||teacher - student||^2 / ||teacher||^2 over the whole batch: 1 for a student of zeros.

    Args:
        student: (B, ...) feature.
        teacher: (B, ...) feature of the same shape.

    Returns:
        Scalar without units, comparable between stages.

    Raises:
        ValueError: the shapes differ.
    """
    s, t = same_shape(student, teacher)
    return (s - t).square().sum() / t.square().sum().clamp_min(torch.finfo(t.dtype).tiny)


@checked
def pooled_cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - cosine of two features' means over positions, so that images need not lie on one another.

    Args:
        student: (B, C, H, W), or (B, N, C).
        teacher: (B, C, H', W'), or (B, N', C).

    Returns:
        Scalar, 0 to 2; half the squared distance of the directions.

    Raises:
        ValueError: batches or channels differ.

    Source: BYOL (Grill et al., arXiv 2006.07733), eq. 2, halved; of the stages of a supernet: DNA++ (Wang et al., arXiv
        2403.01326), BossNAS (Li et al., arXiv 2103.12424).
    """
    s, t = pair(student, teacher)
    return (_direction(s) - _direction(t)).square().sum(1).mean() / 2


@checked
def likeness(features: Tensor) -> Tensor:
    """Mean squared cosine between the features of different images: what keeps a network without labels from collapse.

    Args:
        features: (B, C, H, W), or (B, N, C); their means over positions are compared.

    Returns:
        Scalar: 1 where all images give one direction, 0 where all are at right angles or there is one image.

    Source: ours, for the term by which DNA++ (Wang et al., arXiv 2403.01326) drives the outputs of samples apart.
    """
    rows = _direction(wide(features))
    with full_precision(rows):
        products = Gram.apply(rows)
    count = len(rows)
    return (products.square().sum() - products.diagonal().square().sum()) / max(1, count * (count - 1))


def _direction(x: Tensor) -> Tensor:
    """(B, C): the mean over positions, scaled to length 1."""
    return F.normalize(x.flatten(2).mean(2) if x.ndim == 4 else x.mean(1), dim=1)


@checked
def at(student: Tensor, teacher: Tensor, variant: str = "paper") -> Tensor:
    """Attention transfer: difference of the normalised maps of mean squared activation.

    Args:
        student: (B, C, H, W).
        teacher: (B, C', H, W); the channels may differ.
        variant: "paper" is half the mean over the batch of ||Q_s - Q_t||_2, divided by H W, since the paper's beta is
            1000 over the number of a map's values; "code" is the mean square of Q_s - Q_t, as the authors' code and
            every published table have it.

    Returns:
        Scalar; in the form "code" in 0 .. 2 / (H W).

    Raises:
        SettingError: an unknown variant.
        ValueError: the maps differ in size.

    Source: Zagoruyko and Komodakis, arXiv 1612.03928, eq. 2.
    """
    one_of("variant", variant, ("paper", "code"))
    s, t = _maps(student, teacher)
    attention_s = F.normalize(s.square().mean(1), dim=1)  # (B, HW)
    attention_t = F.normalize(t.square().mean(1), dim=1)
    delta = attention_s - attention_t
    return delta.square().mean() if variant == "code" else delta.norm(dim=1).mean() / (2 * delta.shape[1])


@checked
def nst(student: Tensor, teacher: Tensor) -> Tensor:
    """Neuron selectivity transfer: squared MMD of the channels' maps with the kernel (u.v)^2.

    Args:
        student: (B, C, H, W).
        teacher: (B, C', H, W); the channels may differ.

    Returns:
        Scalar >= 0, up to rounding.

    Raises:
        ValueError: the maps differ in size.

    Source: Huang and Wang, arXiv 1707.01219, eq. 6 and 8; as batched products, whose diagonals hold the norms.
    """
    s, t = _maps(student, teacher)
    (c, n) = s.shape[1:]
    d = t.shape[1]
    with full_precision(s):
        if n * n * (c + d) < n * (
            c * c + c * d + d * d
        ):  # the same value, from products over positions or over channels
            return (_selectivity(s) - _selectivity(t)).square().sum((1, 2)).mean()
        own = Gram.apply(s)
        across = torch.bmm(s, t.transpose(1, 2))
        other = Gram.apply(t)
        r = _inverse_norms(own)
        q = _inverse_norms(other)
        parts = ((own, r, r), (other, q, q), (across, r, q))
        same, different, both = ((g * a[:, :, None] * b[:, None, :]).square().mean() for g, a, b in parts)
        return same + different - 2 * both


def _selectivity(x: Tensor) -> Tensor:
    """(B, N, N): mean over channels of the products of positions, each channel (B, C, N) scaled to norm 1."""
    weight = x.square().sum(2, keepdim=True).clamp_min(_TINY).reciprocal() / x.shape[1]
    return torch.bmm((x * weight).transpose(1, 2), x)


def _inverse_norms(products: Tensor) -> Tensor:
    """(B, C): the inverse norms of channels, from their products (B, C, C); finite for a dead channel."""
    return products.diagonal(dim1=1, dim2=2).clamp_min(_TINY).rsqrt()


def _maps(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both as (B, C, positions), checked to have the same positions."""
    s, t = pair(student, teacher)
    if {s.ndim, t.ndim} - {3, 4} or s.ndim != t.ndim or _positions(s) != _positions(t):
        raise ValueError(
            f"features must be (B, C, H, W) of equal H and W, or (B, N, C) of equal N; "
            f"got student {tuple(s.shape)} and teacher {tuple(t.shape)}"
        )
    return (s.flatten(2), t.flatten(2)) if s.ndim == 4 else (s.transpose(1, 2), t.transpose(1, 2))


def _positions(x: Tensor) -> torch.Size:
    return x.shape[2:] if x.ndim == 4 else x.shape[1:2]
