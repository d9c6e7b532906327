"""Tasks: label loss, metric and agreement with the teacher. Nothing else interprets labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from nas_kd.errors import SettingError


class Task(Protocol):
    """The interface of a task."""

    @property
    def facts(self) -> Mapping[str, object]:
        """Its settings in plain values, recorded in runs."""

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the label loss: a scalar in fp32 (float64 stays), the mean over samples whose label is not -1."""

    def scores(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the contribution of each sample to the metric: (N,) float64, higher is better."""

    def metric(self, logits: Tensor, y: Tensor) -> float:
        """Return the mean of the `scores`, 0 to 1."""

    def agreement(self, logits: Tensor, teacher_logits: Tensor) -> float:
        """Return the agreement of student and teacher, 0 to 1."""


@dataclass(frozen=True)
class Classification:
    """Classification with one label per image.

    Args:
        smoothing: label smoothing, the probability spread over all classes, 0 <= smoothing < 1.

    Raises:
        SettingError: smoothing is outside its range.
    """

    smoothing: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise SettingError("smoothing", self.smoothing, "0 <= smoothing < 1", "0.1 is usual, 0 is none")

    @property
    def facts(self) -> dict[str, object]:
        """Its settings in plain values, recorded in runs."""
        return {"smoothing": self.smoothing}

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the cross-entropy with the smoothed labels.

        Args:
            logits: (B, C) of any floating dtype; computed in fp32, float64 stays.
            y: (B,) class numbers, -1 for images without a label; or (B, C) probabilities.

        Returns:
            Scalar, the mean over the images with a label; 0 if there are none.
        """
        wide = logits if logits.dtype == torch.float64 else logits.float()
        if y.ndim > 1:
            return F.cross_entropy(wide, y, label_smoothing=self.smoothing)
        total = F.cross_entropy(wide, y, label_smoothing=self.smoothing, ignore_index=-1, reduction="sum")
        return total / (y >= 0).sum().clamp_min(1)

    def scores(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return (N,) float64: 1 where the largest of the logits (N, C) is that of the label, else 0."""
        return (logits.argmax(1) == y).double()

    def metric(self, logits: Tensor, y: Tensor) -> float:
        """Return the accuracy, 0 to 1, of logits (N, C) on class numbers (N,)."""
        return float(self.scores(logits, y).mean())

    def agreement(self, logits: Tensor, teacher_logits: Tensor) -> float:
        """Return the share of samples, 0 to 1, for which student and teacher (N, C) predict the same class."""
        return self.metric(logits, teacher_logits.argmax(1))
