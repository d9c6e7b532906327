"""Logistic regression on the features of a network: what it knows, and a classifier to begin with."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

# sums of losses weigh against the squared norm of the weights: sklearn's C times the number of images
STRENGTHS = (0.2, 2.0, 20.0, 200.0)
FOLDS = 3
STEPS = 200


class Linear(NamedTuple):
    """A linear classifier of features: ``x @ weight.T + bias``."""

    weight: Tensor  # (C, D)
    bias: Tensor  # (C,)


def _scaled(features: Tensor) -> tuple[np.ndarray, np.ndarray, float]:
    """Return centred features of unit mean variance, their mean, and their scale."""
    x = features.double().numpy()
    mean = x.mean(0)
    scale = float(np.sqrt((x - mean).var())) or 1.0
    return (x - mean) / scale, mean, scale


def logistic(features: Tensor, labels: Tensor, classes: int) -> Linear:
    """Fit logistic regression, its strength by cross-validated log loss.

    Args:
        features: (N, D), finite.
        labels: (N,) class numbers; each class has at least `FOLDS` images.
        classes: number of classes, C.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score

    x, mean, scale = _scaled(features)
    y = labels.numpy()
    models = [LogisticRegression(C=strength / len(x), max_iter=STEPS) for strength in STRENGTHS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few steps, which suffice to begin with
        losses = [-cross_val_score(model, x, y, cv=FOLDS, scoring="neg_log_loss").mean() for model in models]
        best = models[int(np.argmin(losses))].fit(x, y)
    weight = best.coef_
    bias = best.intercept_
    if len(weight) == 1:  # of two classes, the difference
        weight = np.concatenate([-weight, weight]) / 2
        bias = np.concatenate([-bias, bias]) / 2
    whole = np.zeros((classes, x.shape[1]))
    level = np.full(classes, bias.min() - 10.0)  # a class without images
    whole[best.classes_] = weight / scale
    level[best.classes_] = bias - whole[best.classes_] @ mean
    return Linear(torch.from_numpy(whole).float(), torch.from_numpy(level).float())


def linear_probe(features: Tensor, labels: Tensor) -> Tensor:
    """Return for each image, (N,), whether logistic regression on the others' features knows its class.

    Args:
        features: (N, D), finite.
        labels: (N,) class numbers; each class has at least `FOLDS` images.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    x = _scaled(features)[0]
    y = labels.numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answers = cross_val_predict(LogisticRegression(C=STRENGTHS[1] / len(x), max_iter=STEPS), x, y, cv=FOLDS)
    return torch.from_numpy(answers == y)
