"""A soft decision tree as a student."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nas_kd import losses
from nas_kd.data import Batch
from nas_kd.distill.pair import Pair
from nas_kd.errors import SettingError
from nas_kd.losses._common import wide


class SoftTree(nn.Module):
    """A binary tree whose inner nodes decide by a sigmoid of a linear function of the image.

    Args:
        depth: decisions from root to leaf, at least 1; there are 2^depth leaves.
        steepness: beta of the sigmoids.

    Raises:
        SettingError: depth below 1.

    Source: Frosst and Hinton, Distilling a neural network into a soft decision tree, arXiv 1711.09784, section 2.
    """

    def __init__(self, depth: int, inputs: int, classes: int, steepness: float = 1.0) -> None:
        super().__init__()
        if depth < 1:
            raise SettingError("depth", depth, "an integer of at least 1")
        self.depth = depth
        self.steepness = steepness
        arguments = {"depth": depth, "inputs": inputs, "classes": classes, "steepness": steepness}
        self.factory = f"{SoftTree.__module__}:{SoftTree.__name__}", arguments  # rebuilds it from a student folder
        self.nodes = nn.Linear(inputs, 2**depth - 1)
        self.leaves = nn.Parameter(torch.randn(2**depth, classes) / math.sqrt(classes))

    def decisions(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, 2^depth - 1) probabilities of going right, the root first."""
        return torch.sigmoid(self.steepness * wide(self.nodes(x.flatten(1))))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to log-probabilities (B, C): the leaves' distributions, weighted by their paths."""
        path = losses.tree_paths(self.decisions(x))[-1]
        log_leaves = wide(self.leaves).log_softmax(1)
        smallest = torch.finfo(path.dtype).tiny
        return (path.clamp_min(smallest).log()[:, :, None] + log_leaves).logsumexp(1)


class TreeLoss(nn.Module):
    """Loss of a soft tree: each leaf's cross-entropy with the teacher, weighted by its path, plus a balance penalty.

    Args:
        pair: the student must be a `SoftTree`.
        penalty: lambda at the root; it halves with every level.
        temperature: of the teacher's logits.

    Raises:
        SettingError: the student is not a soft tree.

    Source: Frosst and Hinton, arXiv 1711.09784, eq. 3 to 5.
    """

    def __init__(self, pair: Pair, penalty: float = 0.1, temperature: float = 1.0) -> None:
        super().__init__()
        if not isinstance(pair.model, SoftTree):
            expected = "a nas_kd.distill.SoftTree as the student of this method"
            raise SettingError("model", type(pair.model).__name__, expected, "pass SoftTree(depth, inputs, classes)")
        self._tree = (pair.model,)  # a tuple keeps it out of this module's parameters
        self.penalty = penalty
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """Return the loss; the student's log-probabilities (B, C) are not used."""
        tree = self._tree[0]
        gates = tree.decisions(batch.x)
        target = wide(teacher).detach() / self.temperature
        value = losses.soft_tree(gates, wide(tree.leaves), target)
        return value + self.penalty * losses.tree_balance(gates) if self.penalty else value
