"""What is learnt: label loss, metric and agreement with the teacher. Nothing else knows labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nas_kd.errors import SettingError


@dataclass(frozen=True)
class Classification:
    """Classification of one label an image.

    Args:
        smoothing: label smoothing, the share of the target spread over all classes, 0 <= smoothing < 1.

    Raises:
        SettingError: smoothing is outside its range.
    """

    smoothing: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise SettingError("smoothing", self.smoothing, "0 <= smoothing < 1", "0.1 is usual, 0 is none")

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the cross-entropy with the smoothed labels.

        Args:
            logits: (B, C) of any floating dtype; computed in fp32, float64 stays.
            y: (B,) class numbers, -1 for images without a label; or (B, C) probabilities.

        Returns:
            Scalar, the mean over the images that have a label; 0 where none has.
        """
        wide = logits if logits.dtype == torch.float64 else logits.float()
        if y.ndim > 1:
            return F.cross_entropy(wide, y, label_smoothing=self.smoothing)
        total = F.cross_entropy(wide, y, label_smoothing=self.smoothing, ignore_index=-1, reduction="sum")
        return total / (y >= 0).sum().clamp_min(1)

    def scores(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return what each sample counts in the metric.

        Args:
            logits: (N, C).
            y: (N,) class numbers.

        Returns:
            (N,) float64: 1 where the largest logit is the label's, else 0.
        """
        return (logits.argmax(1) == y).double()

    def metric(self, logits: Tensor, y: Tensor) -> float:
        """Return the accuracy: the mean of the `scores`.

        Args:
            logits: (N, C).
            y: (N,) class numbers.

        Returns:
            Share of samples whose largest logit is the label's, 0 to 1.
        """
        return float(self.scores(logits, y).mean())

    def agreement(self, logits: Tensor, teacher_logits: Tensor) -> float:
        """Return how often student and teacher give the same class.

        Args:
            logits: (N, C).
            teacher_logits: (N, C).

        Returns:
            Share of samples, 0 to 1.
        """
        return self.metric(logits, teacher_logits.argmax(1))
