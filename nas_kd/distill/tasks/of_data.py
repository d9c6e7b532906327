"""The task of a data set: by what its labels are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from nas_kd.distill.tasks.classification import Classification
from nas_kd.distill.tasks.multilabel import MultiLabel
from nas_kd.distill.tasks.regression import Regression
from nas_kd.errors import SettingError

if TYPE_CHECKING:
    from nas_kd.data import Data, Split


def task_of(
    data: Data, *, smoothing: float = 0.0, measure: str | None = None
) -> Classification | MultiLabel | Regression:
    """Return the task of a data set, with the weights that its ``balance`` asks for.

    Args:
        data: its ``kind`` chooses the task.
        smoothing: of the labels, where they are classes or labels of 0 or 1.
        measure: what search and hand-over go by; None is the task's own.

    Raises:
        SettingError: the task has no such measure, or its labels cannot be balanced.
    """
    given = {} if measure is None else {"measure": measure}
    if data.kind == "regression":
        if data.balance != "none":
            raise SettingError("data.balance", data.balance, "none with labels that are real numbers", "omit it")
        return Regression(**given)
    if data.kind == "multilabel" and data.balance == "sampler":
        hint = "use data.balance=class_weights"
        expected = data.spoken("none or class_weights with several labels an image")
        raise SettingError("data.balance", "sampler", expected, hint)
    weights = balancing_weights(data.train, data.kind) if data.balance == "class_weights" else None
    if data.kind == "multilabel":
        return MultiLabel(smoothing, weights=weights, **given)
    return Classification(smoothing, weights=weights, **given)


def unscaled(data: Data) -> dict[str, float]:
    """Return numbers to be learnt whose spread is far from 1, by name with their standard deviation in train.

    The squared error is in their units: at a spread of 1,000 the usual rates diverge, at 0.001 nothing is learnt.
    """
    if data.kind != "regression":
        return {}
    spread = data.train.labels.double().std(0).tolist()
    return {name: each for name, each in zip(data.classes, spread, strict=True) if not 0.1 <= each <= 10}


def balancing_weights(split: Split, kind: str) -> list[float]:
    """Return weights under which rare classes, or labels that are seldom true, count as much as frequent ones.

    Returns:
        Of each class: images over classes over its images, as scikit-learn's "balanced" ones; of each label: the number
        of images without it over that with it.
    """
    y = split.labels
    if kind == "classes":
        known = y[y >= 0]
        counts = torch.bincount(known).double()
        return (len(known) / (len(counts) * counts.clamp_min(1))).tolist()
    positive = (y > 0.5).sum(0).double()
    negative = ((y >= 0) & (y <= 0.5)).sum(0).double()
    return (negative.clamp_min(1) / positive.clamp_min(1)).tolist()
