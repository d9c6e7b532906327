"""Several labels an image, each true or not by itself: one sigmoid a label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nas_kd import losses
from nas_kd.config.kinds import checked_class
from nas_kd.distill.task import Task, influence
from nas_kd.distill.tasks.classification import check_measure, checked_weights
from nas_kd.errors import SettingError

MEASURES = ("map", "macro_f1")
THRESHOLD = 0.0  # of a logit: a probability of a half


@checked_class
@dataclass(frozen=True)
class MultiLabel(Task):
    """Several labels an image.

    Args:
        smoothing: share by which labels move towards a half, 0 <= smoothing < 1.
        measure: what search and hand-over go by: map (the mean over labels of the average precision) or macro_f1.
        weights: of a label of 1 against that of 0 in the label loss; None is 1 for all.

    Raises:
        SettingError: a value is outside its range.
    """

    smoothing: float = 0.0
    measure: str = "map"
    weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise SettingError("smoothing", self.smoothing, "0 <= smoothing < 1", "0 is none")
        check_measure(self.measure, MEASURES)
        object.__setattr__(self, "weights", checked_weights(self.weights))

    @property
    def kind(self) -> str:
        return "multilabel"

    @property
    def facts(self) -> dict[str, object]:
        """Its settings in plain values, recorded in runs."""
        found: dict[str, object] = {"smoothing": self.smoothing, "measure": self.measure}
        return found | ({} if self.weights is None else {"weights": list(self.weights)})

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the binary cross-entropy of logits (B, L) with labels (B, L) of 0, 1, or NaN or -1 where unknown."""
        weights = None if self.weights is None else torch.tensor(self.weights)
        return losses.binary_cross_entropy(logits, y, self.smoothing, weights)

    def divergence(self, student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
        """Return the KL of the teacher's softened Bernoulli distributions, the mean over samples and labels."""
        return losses.bernoulli_kl(student / temperature, teacher / temperature)

    def scores(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return what each sample counts: (N,) float64, its `influence` on the measure, which is no mean over samples.

        The average precision of a label ranks all samples, so one sample has none of its own.
        """
        own = _precision_without if self.measure == "map" else _f1_without
        whole, without = own(logits.cpu().double(), y.cpu().double())
        return influence(whole, without).to(logits.device)

    def metric(self, logits: Tensor, y: Tensor) -> float:
        """Return the measure, 0 to 1, over the labels that occur."""
        return self.measures(logits, y)[self.measure]

    def measures(self, logits: Tensor, y: Tensor) -> dict[str, float]:
        """Return mean average precision and macro F1 at a probability of a half, over the labels that occur."""
        import numpy as np

        each = self.by_output(logits, y)
        found = {"map": each["average_precision"], "macro_f1": each["f1"]}
        return {name: float(np.nanmean(values)) if np.isfinite(values).any() else 0.0 for name, values in found.items()}

    def by_output(self, logits: Tensor, y: Tensor) -> dict[str, list[float]]:
        """Return average precision and F1 of every label (NaN where none is true), and how many samples have it."""
        from sklearn.metrics import average_precision_score, f1_score

        precision = []
        f1 = []
        counts = []
        for z, label in zip(logits.cpu().double().T.numpy(), y.cpu().double().T.numpy(), strict=True):
            known = label >= 0
            true = label[known] > 0.5
            counts.append(float(true.sum()))
            precision.append(float(average_precision_score(true, z[known])) if true.any() else math.nan)
            f1.append(float(f1_score(true, z[known] > THRESHOLD, zero_division=0.0)) if true.any() else math.nan)
        return {"average_precision": precision, "f1": f1, "images": counts}

    def collapsed(self, logits: Tensor, y: Tensor) -> bool:
        """Return whether all samples get the same answers, or are ranked no better than at random."""
        if bool(((logits - logits[:1]).abs() < 1e-6).all()):
            return True
        known = y >= 0
        shares = (torch.where(known, y, 0).sum(0) / known.sum(0).clamp_min(1)).double()
        chance = shares[shares > 0]  # the average precision of a random order
        return len(chance) > 0 and MultiLabel().metric(logits, y) <= float(chance.mean())

    def agreement(self, logits: Tensor, teacher_logits: Tensor) -> float:
        """Return the share of labels, over all samples, that student and teacher (N, L) answer alike at a half."""
        return float(((logits > THRESHOLD) == (teacher_logits > THRESHOLD)).double().mean())


def _precision_without(logits: Tensor, y: Tensor) -> tuple[float, Tensor]:
    """Return the mean average precision, and that without each sample."""
    whole = torch.full((logits.shape[1],), math.nan, dtype=torch.float64)
    without = torch.full(logits.shape, math.nan, dtype=torch.float64)
    for label in range(logits.shape[1]):
        known = y[:, label] >= 0
        true = y[known, label] > 0.5
        if true.any():
            whole[label], rest = _average_precision(logits[known, label], true)
            without[:, label] = whole[label]  # a sample that is unknown changes nothing
            without[known, label] = rest
    return _mean(whole), without.nanmean(1)


def _average_precision(z: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """Return the average precision of a label, and that without each sample; NaN where none would be left.

    It is the mean over the true samples of the precision among all that score as high or higher. Leaving out a sample
    changes that of those that score as high or lower: one fewer of them, and one fewer true one if it was.
    """
    values, place = (-z).unique(return_inverse=True)  # ascending: the highest score first
    ranks = torch.bincount(place, minlength=len(values)).cumsum(0).double()
    hits = torch.bincount(place, weights=true.double(), minlength=len(values)).cumsum(0)
    own = torch.bincount(place, weights=true.double(), minlength=len(values))  # true ones a value
    count = hits[-1]

    def summed(precision: Tensor) -> Tensor:
        return (own * precision).cumsum(0)

    as_is = summed(hits / ranks)
    fewer = (ranks - 1).clamp_min(1)
    above = torch.where(place > 0, as_is[(place - 1).clamp_min(0)], 0.0)
    tails = []
    for gone in (0.0, 1.0):
        changed = summed((hits - gone) / fewer)
        tails.append(changed[-1] - torch.where(place > 0, changed[(place - 1).clamp_min(0)], 0.0))
    # the sample itself is among the true ones of its value, and no longer counts
    itself = ((hits - 1) / fewer)[place]
    rest = torch.where(true, (above + tails[1] - itself) / (count - 1), (above + tails[0]) / count)
    return as_is[-1] / count, rest


def _f1_without(logits: Tensor, y: Tensor) -> tuple[float, Tensor]:
    """Return the mean F1 of the labels that occur, and that without each sample."""
    known = y >= 0
    true = (y > 0.5) & known
    answered = (logits > THRESHOLD) & known
    hits = (true & answered).double()
    sums = true.double() + answered.double()
    left = true.sum(0) - true.double()
    without = 2 * (hits.sum(0) - hits) / (sums.sum(0) - sums).clamp_min(1)
    whole = torch.where(true.any(0), 2 * hits.sum(0) / sums.sum(0).clamp_min(1), math.nan)
    return _mean(whole), torch.where(left > 0, without, math.nan).nanmean(1)


def _mean(values: Tensor) -> float:
    return float(values.nanmean()) if bool(torch.isfinite(values).any()) else 0.0
