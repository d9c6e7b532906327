"""Losses on the relations among the samples of a batch: embeddings (B, D), or features that are flattened.

Student and teacher may have different D, because only B x B matrices are compared. Both must see the same batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nas_kd.losses._common import Gram, full_precision, one_of, pair, pearson, same_shape
from nas_kd.losses.divergence import kl_of_log


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


def rkd(student: Tensor, teacher: Tensor, distance: float = 25.0, angle: float = 50.0, anchors: int = 64) -> Tensor:
    """Relational distillation: Huber losses of relative distances and of the angles of all triples.

    Args:
        student, teacher: (B, ...).
        distance: weight of the distances, each divided by the batch's mean distance.
        angle: weight of the cosines, 0 leaves them out.
        anchors: number of samples, from the start of the batch, that form triples; memory and time grow with its cube.

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


def irg(
    student: Sequence[Tensor], teacher: Sequence[Tensor], edges: float = 1.0, change: float = 1.0, samples: int = 64
) -> Tensor:
    """Instance relationship graphs: relative distances among a batch's samples, and their change with depth.

    Args:
        student: stages (B, ...).
        teacher: the same number of stages (B, ...), of any widths.
        edges: weight of the distances, the mean over the stages of the mean squared difference.
        change: weight of the change of the distances from each stage to the next, averaged in the same way.
        samples: number of samples, from the start of the batch, that form the graph: whole maps are compared.

    Returns:
        Scalar; invariant to rotation, translation and scale of any stage of either side.

    Raises:
        ValueError: the stages differ in number, or are fewer than two.

    Source: Liu et al., Knowledge distillation via instance relationship graph, CVPR 2019, eq. 4 and 6; the vertices,
    the logits, are another term.
    """
    if len(student) != len(teacher) or len(student) < 2:
        raise ValueError(f"expected at least 2 stages of each, got {len(student)} and {len(teacher)}")
    deltas = []  # the student's graph minus the teacher's, per stage
    for one, other in zip(student, teacher, strict=True):
        s, t = pair(one[:samples], other[:samples])
        with full_precision(s):
            deltas.append(_relative(_wide_distances(s)) - _relative(_wide_distances(t)))
    graphs = torch.stack(deltas)  # (S, B, B)
    return edges * graphs.square().mean() + change * graphs.diff(dim=0).square().mean()


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


def _wide_distances(x: Tensor) -> Tensor:
    """(B, B) Euclidean distances of maps (B, ...) by one product, 200 times as fast as by differences.

    The maps are centred first, so that their common part causes no cancellation; maps that differ by less than
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
    return squared.masked_fill(same, 1.0).sqrt().masked_fill(same, 0.0)


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
