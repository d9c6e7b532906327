"""Losses of soft decision trees; nodes are numbered level by level, node i's children 2 i + 1 and 2 i + 2."""

from __future__ import annotations

import torch
from torch import Tensor

from nas_kd.config.kinds import checked
from nas_kd.losses._common import wide


@checked
def tree_paths(gates: Tensor) -> list[Tensor]:
    """Probabilities of reaching every node, level by level.

    Args:
        gates: (B, 2^depth - 1) probabilities of going right at the inner nodes.

    Returns:
        depth + 1 tensors (B, 2^level), the root's first, the leaves' last; each sums to 1 over its level.

    Raises:
        ValueError: the number of inner nodes is not one less than a power of 2.
    """
    nodes = gates.shape[1] + 1
    if nodes < 2 or nodes & (nodes - 1):
        raise ValueError(f"expected 2^depth - 1 gates, got {gates.shape[1]}")
    levels = [torch.ones_like(gates[:, :1])]
    start = 0
    while len(levels[-1][0]) < nodes:
        reach = levels[-1]
        right = gates[:, start : start + reach.shape[1]]
        start += reach.shape[1]
        levels.append(torch.stack([reach * (1 - right), reach * right], 2).flatten(1))
    return levels


@checked
def soft_tree(gates: Tensor, leaves: Tensor, teacher: Tensor) -> Tensor:
    """Every leaf's cross-entropy with the teacher's distribution, weighted by the probability of its path.

    Args:
        gates: (B, 2^depth - 1) probabilities of going right.
        leaves: (2^depth, C) logits of the leaves.
        teacher: (B, C) logits.

    Returns:
        Scalar, the mean over the batch.

    Source: Frosst and Hinton, arXiv 1711.09784, eq. 3 (without its outer logarithm, as in common implementations).
    """
    g = wide(gates)
    cross = -teacher.detach().to(g.dtype).softmax(1) @ leaves.to(g.dtype).log_softmax(1).T  # (B, leaves)
    return (tree_paths(g)[-1] * cross).sum(1).mean()


@checked
def tree_balance(gates: Tensor) -> Tensor:
    """Balance penalty: how unevenly the inner nodes split a batch between left and right.

    Args:
        gates: (B, 2^depth - 1) probabilities of going right.

    Returns:
        Scalar, the sum over nodes of 2^-level times half of -log a - log(1 - a), a the mean decision weighted by the
        paths to the node; depth log 2 if every node splits evenly.

    Source: Frosst and Hinton, arXiv 1711.09784, eq. 4 and 5.
    """
    g = wide(gates)
    total = torch.zeros((), dtype=g.dtype, device=g.device)
    start = 0
    small = torch.finfo(g.dtype).eps
    for level, reach in enumerate(tree_paths(g)[:-1]):
        right = g[:, start : start + reach.shape[1]]
        start += reach.shape[1]
        a = (reach * right).sum(0) / reach.sum(0).clamp_min(small)
        a = a.clamp(small, 1 - small)
        total = total - 0.5**level * (a.log() + (1 - a).log()).sum() / 2
    return total
