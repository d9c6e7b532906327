"""Classification with one label per image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nas_kd.config.kinds import checked_class
from nas_kd.distill.task import Task, influence
from nas_kd.errors import SettingError, nearest

MEASURES = ("accuracy", "balanced_accuracy", "macro_f1")


@checked_class
@dataclass(frozen=True, repr=False)
class Classification(Task):
    """Classification with one label per image.

    Args:
        smoothing: label smoothing, the probability spread over all classes, 0 <= smoothing < 1.
        measure: what search and hand-over go by: accuracy, balanced_accuracy (mean recall of the classes) or macro_f1.
        weights: of the classes in the label loss; None is 1 for all.

    Raises:
        SettingError: a value is outside its range.
    """

    smoothing: float = 0.1
    measure: str = "accuracy"
    weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise SettingError("smoothing", self.smoothing, "0 <= smoothing < 1", "0.1 is usual, 0 is none")
        check_measure(self.measure, MEASURES)
        object.__setattr__(self, "weights", checked_weights(self.weights))

    def __repr__(self) -> str:
        # recorded in run folders: what is at its default is left out
        return f"Classification({', '.join(f'{name}={value!r}' for name, value in self.facts.items())})"

    @property
    def kind(self) -> str:
        return "classes"

    @property
    def facts(self) -> dict[str, object]:
        """Its settings in plain values, recorded in runs."""
        found: dict[str, object] = {"smoothing": self.smoothing}
        found |= {} if self.measure == MEASURES[0] else {"measure": self.measure}
        return found | ({} if self.weights is None else {"weights": list(self.weights)})

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the cross-entropy with the smoothed labels.

        Args:
            logits: (B, C) of any floating dtype; computed in fp32, float64 stays.
            y: (B,) class numbers, -1 for images without a label; or (B, C) probabilities.

        Returns:
            Scalar, the mean over the images with a label, weighted by their classes; 0 if there are none.
        """
        wide = logits if logits.dtype == torch.float64 else logits.float()
        weights = None if self.weights is None else torch.tensor(self.weights, dtype=wide.dtype, device=wide.device)
        if y.ndim > 1:
            return F.cross_entropy(wide, y, weights, label_smoothing=self.smoothing)
        total = F.cross_entropy(wide, y, weights, label_smoothing=self.smoothing, ignore_index=-1, reduction="sum")
        if weights is None:
            return total / (y >= 0).sum().clamp_min(1)
        counted = weights[y.clamp_min(0)] * (y >= 0)
        return total / counted.sum().clamp_min(torch.finfo(wide.dtype).tiny)

    def scores(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return what each sample counts: (N,) float64, whose mean is the measure.

        For the accuracy 1 where the largest of the logits (N, C) is that of the label, else 0; for the balanced one the
        same over the share of the class; for the macro F1, which is no mean over samples, its `influence`. A sample
        without a label counts as the mean of the others.
        """
        hits = (logits.argmax(1) == y).double()
        known = y >= 0
        labels = y[known]
        if self.measure == "macro_f1":
            scores = _f1_influence(logits.argmax(1)[known], labels)
        elif self.measure == "balanced_accuracy":
            counts = torch.bincount(labels)
            scores = hits[known] * len(labels) / (counts[labels] * (counts > 0).sum())
        else:
            scores = hits[known]
        if len(labels) == len(y):
            return scores
        return torch.full_like(hits, float(scores.mean()) if len(labels) else 0.0).masked_scatter(known, scores)

    def metric(self, logits: Tensor, y: Tensor) -> float:
        """Return the measure, 0 to 1, of logits (N, C) on class numbers (N,)."""
        if self.measure == "accuracy":
            return float(self.scores(logits, y).mean())
        return self.measures(logits, y)[self.measure]

    def measures(self, logits: Tensor, y: Tensor) -> dict[str, float]:
        """Return accuracy, balanced accuracy and macro F1, the last two over the classes that occur."""
        import numpy as np
        from sklearn.metrics import f1_score

        labels = _known(y)
        found = {"accuracy": Classification().metric(logits, y)}
        if not len(labels):
            return dict.fromkeys(MEASURES, math.nan)
        answers = _known(torch.where(y >= 0, logits.argmax(1).to(y.device), -1))
        present = np.unique(labels)
        recall = _recall(labels, answers, present)
        f1 = f1_score(labels, answers, labels=present, average="macro", zero_division=0.0)
        return found | {"balanced_accuracy": float(np.mean(recall)), "macro_f1": float(f1)}

    def by_output(self, logits: Tensor, y: Tensor) -> dict[str, list[float]]:
        """Return recall, precision (NaN where undefined) and number of images of every class."""
        import numpy as np
        from sklearn.metrics import precision_score

        classes = np.arange(logits.shape[1])
        labels = _known(y)
        if not len(labels):
            return {}
        answers = _known(torch.where(y >= 0, logits.argmax(1).to(y.device), -1))
        precision = precision_score(labels, answers, labels=classes, average=None, zero_division=np.nan)
        counts = np.bincount(labels, minlength=len(classes)).astype(float)
        return {
            "recall": [float(value) for value in _recall(labels, answers, classes)],
            "precision": [float(value) for value in precision],
            "images": counts.tolist(),
        }

    def answers(self, logits: Tensor) -> Tensor:
        return logits.argmax(1)

    def collapsed(self, logits: Tensor, y: Tensor) -> bool:
        """Return whether one class is answered for all, or the mean recall is within two standard errors of chance."""
        labels = y[y >= 0].cpu()
        answers = logits.argmax(1).cpu()[y.cpu() >= 0]
        counts = torch.bincount(labels)
        counts = counts[counts > 0].double()
        if len(counts) < 2:
            return False
        chance = 1 / len(counts)
        error = math.sqrt(chance * (1 - chance) * float((1 / counts).sum())) / len(counts)
        recall = Classification(measure="balanced_accuracy").metric(logits, y)
        return len(answers.unique()) == 1 or recall <= chance + 2 * error

    def agreement(self, logits: Tensor, teacher_logits: Tensor) -> float:
        """Return the share of samples, 0 to 1, for which student and teacher (N, C) predict the same class."""
        return float((logits.argmax(1) == teacher_logits.argmax(1)).double().mean())


def check_measure(measure: str, known: Sequence[str]) -> None:
    """Refuse a measure that a task does not have."""
    if measure not in known:
        raise SettingError("metric", measure, " or ".join(known), nearest(str(measure), known))


def checked_weights(weights: Sequence[float] | None) -> tuple[float, ...] | None:
    """Return weights of the outputs as a value; refuse those that are not above 0."""
    if weights is None:
        return None
    if not all(0 < weight < math.inf for weight in weights):
        raise SettingError("weights", list(weights), "finite numbers above 0, one an output", "omit it")
    return tuple(float(weight) for weight in weights)


def _known(y: Tensor) -> torch.Tensor:
    return y[y >= 0].cpu().numpy()  # type: ignore[return-value]


def _recall(labels, answers, classes):  # type: ignore[no-untyped-def]
    import numpy as np
    from sklearn.metrics import recall_score

    return recall_score(labels, answers, labels=classes, average=None, zero_division=np.nan)


def _f1_influence(answers: Tensor, labels: Tensor) -> Tensor:
    """Return the influence of each sample on the mean F1 of the classes that occur: one value a cell of the table."""
    classes = int(torch.cat([answers, labels]).max()) + 1
    table = torch.zeros(classes, classes, dtype=torch.float64)
    cells = (labels * classes + answers).cpu()
    table.view(-1).add_(torch.bincount(cells, minlength=classes * classes).double())
    without = torch.full((classes * classes,), math.nan, dtype=torch.float64)
    for cell in cells.unique().tolist():
        table.view(-1)[cell] -= 1
        without[cell] = _macro_f1(table)
        table.view(-1)[cell] += 1
    return influence(_macro_f1(table), without[cells]).to(labels.device)


def _macro_f1(table: Tensor) -> float:
    """Return the mean F1 over the classes (rows) that occur in a table of labels by answers."""
    present = table.sum(1) > 0
    f1 = 2 * table.diagonal() / (table.sum(0) + table.sum(1)).clamp_min(1)
    return float(f1[present].mean())
