"""Real numbers an image: squared errors to labels and to the teacher."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nas_kd import losses
from nas_kd.config.kinds import checked_class
from nas_kd.distill.task import Task, influence
from nas_kd.distill.tasks.classification import check_measure

MEASURES = ("r2", "mae")


@checked_class
@dataclass(frozen=True)
class Regression(Task):
    """Regression of one or more numbers an image, which are best scaled to a variance near 1.

    Args:
        measure: what search and hand-over go by: r2, the explained share of the variance, or mae, the mean absolute
            error; the mean over the outputs.

    Raises:
        SettingError: there is no such measure.
    """

    measure: str = "r2"

    def __post_init__(self) -> None:
        check_measure(self.measure, MEASURES)

    @property
    def kind(self) -> str:
        return "regression"

    @property
    def facts(self) -> dict[str, object]:
        """Its settings in plain values, recorded in runs."""
        return {"measure": self.measure}

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the mean squared error of outputs (B, K) to labels (B, K), NaN where unknown."""
        return losses.squared_error(logits, y)

    def divergence(self, student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
        """Return the mean squared error to the teacher's outputs; a temperature T only divides it by T^2."""
        return losses.logit_mse(student / temperature, teacher / temperature)

    def scores(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return what each sample counts: (N,) float64, its `influence` on the measure; of MAE, less its errors.

        The variance that R2 holds errors against is that of all samples, so one sample has no share of its own.
        """
        if self.measure == "mae":
            return -_absolute(logits.double(), y.double())
        z, labels = logits.cpu().double(), y.cpu().double()
        known = torch.isfinite(labels)
        labels = torch.where(known, labels, 0.0)
        count = known.sum(0).double()
        mean = labels.sum(0) / count
        deviations = (labels - mean).square() * known
        errors = (z - labels).square() * known
        left = count - known.double()
        rest = deviations.sum(0) - deviations * count / left.clamp_min(1)
        without = _explained(errors.sum(0) - errors, rest, left)
        whole = _explained(errors.sum(0), deviations.sum(0), count)
        return influence(_mean(whole), without.nanmean(1)).to(logits.device)

    def metric(self, logits: Tensor, y: Tensor) -> float:
        """Return the measure: of R2 at most 1, and 0 for the labels' means; of MAE 0 or more, lower being better."""
        return self.measures(logits, y)[self.measure]

    def measures(self, logits: Tensor, y: Tensor) -> dict[str, float]:
        """Return R2 and mean absolute error, the mean over the outputs."""
        each = self.by_output(logits, y)
        return {name: _mean(torch.tensor(each[name], dtype=torch.float64)) for name in ("r2", "mae")}

    def by_output(self, logits: Tensor, y: Tensor) -> dict[str, list[float]]:
        """Return R2 (NaN where labels do not vary) and mean absolute error of every output, and its known samples."""
        import numpy as np
        from sklearn.metrics import mean_absolute_error, r2_score

        found: dict[str, list[float]] = {"r2": [], "mae": [], "images": []}
        for z, label in zip(logits.cpu().double().T.numpy(), y.cpu().double().T.numpy(), strict=True):
            known = np.isfinite(label)
            varies = known.any() and np.ptp(label[known]) > 0
            found["r2"].append(float(r2_score(label[known], z[known])) if varies else math.nan)
            found["mae"].append(float(mean_absolute_error(label[known], z[known])) if known.any() else math.nan)
            found["images"].append(float(known.sum()))
        return found

    def collapsed(self, logits: Tensor, y: Tensor) -> bool:
        """Return whether the outputs explain nothing that the labels' mean does not."""
        return Regression().metric(logits, y) <= 0.0

    def agreement(self, logits: Tensor, teacher_logits: Tensor) -> float:
        """Return the share of the teacher's variance that the student (N, K) explains, not below 0."""
        return max(0.0, Regression().metric(logits, teacher_logits))


def _absolute(z: Tensor, y: Tensor) -> Tensor:
    """Return what each sample adds to the mean absolute error, (N,): its mean is the mean over the outputs.

    An output counts its own known samples; where labels are unknown, those of others count for more.
    """
    known = torch.isfinite(y)
    count = known.sum(0)
    errors = torch.where(known, z - y, 0.0).abs()
    each = errors * (len(y) / count.clamp_min(1))
    return each.sum(1) / (count > 0).sum().clamp_min(1)


def _explained(errors: Tensor, deviations: Tensor, count: Tensor) -> Tensor:
    """Return R2 from sums of squares; NaN where fewer than two samples, or none that vary, are left."""
    varies = (deviations > 1e-12) & (count > 1)
    return torch.where(varies, 1 - errors / torch.where(varies, deviations, 1.0), math.nan)


def _mean(values: Tensor) -> float:
    return float(values.nanmean()) if bool(torch.isfinite(values).any()) else 0.0
