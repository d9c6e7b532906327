"""Losses on the relations among the samples of a batch: embeddings (B, D), or features that are flattened.

Student and teacher may have different D, because only B x B matrices are compared. Both must see the same batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from nas_kd.config.kinds import checked
from nas_kd.losses._common import Gram, full_precision, one_of, pair, pearson, same_shape
from nas_kd.losses.divergence import kl_of_log


@checked
def sp(student: Tensor, teacher: Tensor) -> Tensor:
    """Similarity-preserving distillation: ||G_s - G_t||_F^2 / B^2 of row-normalised Gram matrices.

    Args:
        student, teacher: (B, ...).

    Returns:
        Scalar in 0 .. 4 / B; invariant to rotations and to a common scale of either side.

    Source: Tung and Mori, arXiv 1907.09682, eq. 2 to 4.
    """
    s, t = _rows(student, teacher)
    with full_precision(s):
        return (F.normalize(s @ s.T, dim=1) - F.normalize(t @ t.T, dim=1)).square().mean()


@checked
def pkt(student: Tensor, teacher: Tensor, eps: float = 1e-7) -> Tensor:
    """Probabilistic knowledge transfer: KL of the rows of normalised cosine similarities.

    Args:
        student, teacher: (B, ...).
        eps: smallest similarity, in 0..1, that enters a logarithm.

    Returns:
        Scalar, the mean over all B^2 entries (hence the published weight of 30000).

    Source: Passalis and Tefas, arXiv 1803.10837, eq. 4 and 6.
    """
    s, t = _rows(student, teacher)
    with full_precision(s):
        return kl_of_log(_affinity(t, eps), _affinity(s, eps)).mean() / len(s)


def _affinity(x: Tensor, eps: float) -> Tensor:
    """(B, B) log-probabilities proportional to (1 + cosine) / 2 in every row."""
    unit = F.normalize(x, dim=1)
    similarity = ((1 + unit @ unit.T) / 2).clamp_min(eps)
    return (similarity / similarity.sum(1, keepdim=True)).log()


@checked
def rkd(
    student: Tensor, teacher: Tensor, distance: float = 25.0, angle: float = 50.0, anchors: int | None = None
) -> Tensor:
    """Relational distillation: Huber losses of relative distances and of the angles of all triples.

    Args:
        student, teacher: (B, ...).
        distance: weight of the distances, each divided by the batch's mean distance.
        angle: weight of the cosines, 0 leaves them out.
        anchors: number of samples, from the start of the batch, that form triples, whose memory and time grow with its
            cube; None is all.

    Returns:
        Scalar; invariant to rotation, translation and scale of either side.

    Source: Park et al., arXiv 1904.05068, eq. 6 to 10.
    """
    s, t = _rows(student, teacher)
    with full_precision(s):
        distances_s = _distances(s)
        distances_t = _distances(t)
        loss = distance * F.smooth_l1_loss(_relative(distances_s), _relative(distances_t))
        if angle:
            n = anchors
            loss = loss + angle * F.smooth_l1_loss(
                _cosines(s[:n], distances_s[:n, :n]), _cosines(t[:n], distances_t[:n, :n])
            )
        return loss


@checked
def cc(student: Tensor, teacher: Tensor, gamma: float = 0.4, order: int = 2, variant: str = "paper") -> Tensor:
    """Correlation congruence: mean squared difference of Gaussian kernels of normalised embeddings.

    Args:
        student, teacher: (B, ...).
        gamma: width of the kernel exp(-gamma ||a - b||^2).
        order: order of the kernel's Taylor series in the cosine.
        variant: "paper", or "repdistiller": products of |s - t| of each sample and the next in the batch, summed over
            D, which must then be equal.

    Returns:
        Scalar, ||K_s - K_t||_F^2 / B^2; invariant to rotation and per-sample scale.

    Source: Peng et al., arXiv 1904.01802, eq. 5, 9 and 10.
    """
    one_of("variant", variant, ("paper", "repdistiller"))
    s, t = _rows(student, teacher)
    if variant == "repdistiller":
        s, t = same_shape(s, t)
        delta = (s - t).abs()
        return (delta[:-1] * delta[1:]).sum(1).mean()
    with full_precision(s):
        return (_taylor_rbf(s, gamma, order) - _taylor_rbf(t, gamma, order)).square().mean()


def _taylor_rbf(x: Tensor, gamma: float, order: int) -> Tensor:
    """(B, B): exp(-2 gamma) sum_p (2 gamma cosine)^p / p!."""
    unit = F.normalize(x, dim=1)
    cosine = 2 * gamma * (unit @ unit.T)
    terms = sum((cosine**p / math.factorial(p) for p in range(1, order + 1)), torch.ones_like(cosine))
    return math.exp(-2 * gamma) * terms


@checked
def irg(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    edges: float = 1.0,
    change: float = 1.0,
    variant: str = "paper",
) -> Tensor:
    """Instance relationship graphs: distances among a batch's samples, and how far depth moves each of them.

    Distances are squared and divided by the largest of the batch.

    Args:
        student: stages (B, C, H, W), (B, N, C) or (B, D).
        teacher: the same number of stages, of any widths and sizes.
        edges: weight of the distances among samples, the mean over the stages of the mean squared difference.
        change: weight of every sample's distance from itself one stage before, averaged in the same way. The larger of
            two maps is averaged to the smaller, and so are neighbouring channels of the wider.
        variant: "paper" is the formula; "code" takes every stage's means over places, and the largest distance as a
            constant, as the authors' layers do.

    Returns:
        Scalar; invariant to the scale of either side, and its edges to a rotation or translation of any stage.

    Raises:
        SettingError: an unknown variant.
        ValueError: the stages differ in number, or are fewer than two.

    Source: Liu et al., Knowledge distillation via instance relationship graph, CVPR 2019, eq. 3 to 6, and the authors'
    layers for Caffe; the vertices, the logits, are another term.
    """
    one_of("variant", variant, ("paper", "code"))
    if len(student) != len(teacher) or len(student) < 2:
        raise ValueError(f"expected at least 2 stages of each, got {len(student)} and {len(teacher)}")
    code = variant == "code"
    both = [pair(s, t) for s, t in zip(student, teacher, strict=True)]
    sides = [[_means(x) if code else x for x in stages] for stages in zip(*both, strict=True)]
    with full_precision(both[0][0]):
        own, other = ([_by_largest(_squared_distances(x), code) for x in side] for side in sides)
        moved, theirs = ([_by_largest(_moved(*each), code) for each in pairwise(side)] for side in sides)
        apart = _mean_squares(own, other)
        changed = _mean_squares(moved, theirs)
    return edges * apart + change * changed


def _mean_squares(own: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    return torch.stack([F.mse_loss(a, b) for a, b in zip(own, other, strict=True)]).mean()


def _means(x: Tensor) -> Tensor:
    """(B, C): the means over the places of maps or tokens."""
    return x.mean((2, 3)) if x.ndim == 4 else x.mean(1) if x.ndim == 3 else x


def _by_largest(distances: Tensor, constant: bool) -> Tensor:
    """Distances divided by the largest, perhaps without its gradient; all 0 where no two samples differ."""
    largest = distances.amax().clamp_min(torch.finfo(distances.dtype).tiny)
    return distances / (largest.detach() if constant else largest)


def _moved(before: Tensor, after: Tensor) -> Tensor:
    """(B,): every sample's squared distance between its features of two stages, brought to one shape."""
    one, two = (x.transpose(1, 2) if x.ndim == 3 else x for x in (before, after))
    if one.ndim != two.ndim:
        one, two = _means(before), _means(after)
    if one.ndim > 2 and one.shape[2:] != two.shape[2:]:
        if one.shape[2:].numel() > two.shape[2:].numel():
            one = _at_places_of(two, one)
        else:
            two = _at_places_of(one, two)
    width = min(one.shape[1], two.shape[1])
    one, two = (_narrowed(x.flatten(2) if x.ndim > 2 else x[:, :, None], width) for x in (one, two))
    return (one - two).square().sum((1, 2))


def _at_places_of(small: Tensor, x: Tensor) -> Tensor:
    """Average maps (B, C, H, W) or rows (B, C, N) to the places of smaller ones."""
    if x.ndim == 4:
        return F.adaptive_avg_pool2d(x, (small.shape[2], small.shape[3]))
    return F.adaptive_avg_pool1d(x, small.shape[2])


def _narrowed(x: Tensor, width: int) -> Tensor:
    """(B, width, N): the means of neighbouring channels of (B, C, N)."""
    return x if x.shape[1] == width else F.adaptive_avg_pool1d(x.transpose(1, 2), width).transpose(1, 2)


@checked
def rdm(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - Pearson's correlation of the two batches' distances (representational dissimilarity matrices).

    Args:
        student: (B, ...) with B >= 3.
        teacher: (B, ...).

    Returns:
        Scalar in 0 .. 2; 0 where the student is a rotated, shifted and scaled teacher.

    Raises:
        ValueError: fewer than three samples.
    """
    s, t = _rows(student, teacher)
    if len(s) < 3:
        raise ValueError(f"rdm needs a batch of at least 3 samples, not {len(s)}")
    with full_precision(s):
        i, j = torch.triu_indices(len(s), len(s), 1, device=s.device)
        return 1 - pearson(_distances(s)[i, j], _distances(t)[i, j])


def _rows(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both as (B, D)."""
    s, t = pair(student, teacher)
    return s.flatten(1), t.flatten(1)


def _distances(x: Tensor) -> Tensor:
    """(B, B) Euclidean distances, not by ||a||^2 + ||b||^2 - 2ab, which cancels for near samples."""
    return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")


def _squared_distances(x: Tensor) -> Tensor:
    """(B, B) squared Euclidean distances of features (B, ...) by one product, 200 times as fast as by differences.

    The features are centred first, so that their common part causes no cancellation; those that differ by less than
    rounding have distance 0 and gradient 0.
    """
    if x.ndim == 4:
        x = x.permute(0, 2, 3, 1)  # the memory order of channels_last; the order of the elements does not matter
    x = x.flatten(1)
    x = x - x.detach().mean(0, keepdim=True)  # a common shift changes no distance
    products: Tensor = Gram.apply(x)
    square = products.diagonal()
    squared = square[:, None] + square - 2 * products
    same = squared <= 8 * torch.finfo(x.dtype).eps * (square[:, None] + square)
    return squared.masked_fill(same, 0.0)


def _relative(distances: Tensor) -> Tensor:
    """Distances divided by the mean of those above 0; all 0 where no two samples differ."""
    mean = distances.sum() / (distances > 0).sum().clamp_min(1)
    return distances / mean.clamp_min(1e-12)


def _cosines(x: Tensor, distances: Tensor) -> Tensor:
    """(B, B, B): cosine of the angle at sample i between samples j and k, 0 where two coincide."""
    # dividing by inf gives coincident samples the direction 0 and, unlike a clamp, the gradient 0
    length = distances.masked_fill(distances == 0, float("inf"))
    unit = (x[None] - x[:, None]) / length[:, :, None]  # (B, B, D)
    return torch.bmm(unit, unit.transpose(1, 2))
