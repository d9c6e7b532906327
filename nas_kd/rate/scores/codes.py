"""A control that uses only an arch's code: a regression on it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas_kd.rate.scores.base import Bench, Score
from nas_kd.rate.scores.donna import nested_predictions
from nas_kd.space import Arch


def code_regression(bench: Bench, archs: Sequence[Arch]) -> list[float]:
    """Predict accuracies from which choices an arch makes, without teacher and supernet."""
    codes = bench.space.encode(archs)  # (N, D)
    made = [column == value for column in codes.T for value in np.unique(column)[:-1]]  # one is implied by the others
    features = np.array(made, dtype=float).reshape(len(made), len(archs)).T
    return nested_predictions(features, bench, archs)[0]


CODE_ALONE = Score("regression on codes", code_regression, True, "control", needs=frozenset({"truth"}))
