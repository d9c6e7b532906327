"""The interface of a task: label loss, teaching, measures and agreement. Nothing else interprets labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from nas_kd.losses import kl_divergence


class Task(Protocol):
    """What labels mean; a task that subclasses it has the rest from classification with one label an image."""

    @property
    def kind(self) -> str:
        """What labels are, one of `nas_kd.losses.labels.KINDS`; methods are refused by it."""
        return "classes"

    @property
    def measure(self) -> str:
        """Name of the measure that searches and hand-overs go by."""
        return "accuracy"

    @property
    def facts(self) -> Mapping[str, object]:
        """Its settings in plain values, recorded in runs."""

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the label loss: a scalar in fp32 (float64 stays), the mean over samples whose label is known."""

    def divergence(self, student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
        """Return how far a student's logits are from the teacher's (B, C), both softened: a scalar, 0 for equal."""
        return kl_divergence(student / temperature, teacher / temperature)

    def scores(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the contribution of each sample to the metric: (N,) float64, higher is better."""

    def metric(self, logits: Tensor, y: Tensor) -> float:
        """Return the value of ``measure``: the mean of the `scores`, at most 1, or less it where lower is better."""

    def measures(self, logits: Tensor, y: Tensor) -> dict[str, float]:
        """Return all measures by name, ``measure`` among them."""
        return {self.measure: self.metric(logits, y)}

    def by_output(self, logits: Tensor, y: Tensor) -> dict[str, list[float]]:
        """Return measures of every output, such as the recall of every class, by name; the first is the main one."""
        return {}

    def answers(self, logits: Tensor) -> Tensor | None:
        """Return the class (N,) that is answered for each sample; None where answers are no classes."""
        return None

    def collapsed(self, logits: Tensor, y: Tensor) -> bool:
        """Return whether these answers (N, C) are no better than the same one for all samples."""
        return bool((logits == logits[:1]).all())

    def agreement(self, logits: Tensor, teacher_logits: Tensor) -> float:
        """Return the agreement of student and teacher, 1 for equal answers."""


def influence(whole: float, without: Tensor) -> Tensor:
    """Return what each sample counts in a measure that is no mean over samples: its jackknife pseudo-value.

    They are shifted so that their mean is the measure itself; their standard error over samples is the jackknife's,
    so differences of two networks can be judged sample by sample as those of a mean are.

    Args:
        whole: the measure of all samples.
        without: (N,) the measure without each sample; NaN where it is then not defined, which counts as unchanged.

    Returns:
        (N,) float64.

    Source: Tukey 1958; Efron & Tibshirani, An Introduction to the Bootstrap (1993), section 11.5.
    """
    left = torch.where(torch.isfinite(without), without, whole).double()
    return whole + (len(left) - 1) * (left.mean() - left)
