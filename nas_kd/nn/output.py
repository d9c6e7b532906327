"""Output of a network: logits and the features of every stage."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Output(NamedTuple):
    """One forward pass with its features, so that no hook is needed.

    Args:
        logits: (B, C) class scores before softmax.
        stages: one feature per stage, (B, C, H, W) or (B, N, C), after the stage's last activation.
        pre: the same features before that activation (equal to ``stages`` where there is none).
        pooled: (B, D) input of the classifier.
    """

    logits: Tensor
    stages: list[Tensor]
    pre: list[Tensor]
    pooled: Tensor
