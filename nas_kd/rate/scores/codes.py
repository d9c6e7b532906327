"""A control that uses only an arch's own choices: a regression on them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import numpy as np

from nas_kd.rate.scores.base import Bench, Score
from nas_kd.rate.scores.donna import nested_predictions
from nas_kd.space import Arch


def choice_features(archs: Sequence[Arch]) -> np.ndarray:
    """Write the choices of archs as numbers.

    Args:
        archs: (N,) archs of one space.

    Returns:
        (N, D) with the size of images, each stage's width and, for each place of a layer in a stage, the layer's own
        values, 0 where an arch has no layer there; columns in which all archs agree are left out. Values are taken as
        they are: with each value as a column of its own, thirty trained archs teach nothing.
    """
    columns: list[tuple[float, ...]] = [tuple(float(arch.resolution or 0) for arch in archs)]
    for stage in zip(*(arch.stages for arch in archs), strict=True):
        columns.append(tuple(float(candidate.width or 0) for candidate in stage))
        for layers in zip_longest(*(candidate.layers for candidate in stage), fillvalue=()):
            columns += zip_longest(*(tuple(map(float, layer)) for layer in layers), fillvalue=0.0)
    features = np.array(columns).T
    return features[:, (features != features[:1]).any(0)]


def choice_regression(bench: Bench, archs: Sequence[Arch]) -> list[float]:
    """Predict accuracies from which choices an arch makes, without teacher and supernet."""
    return nested_predictions(choice_features(archs), bench, archs)[0]


CODE_ALONE = Score("regression on choices", choice_regression, True, "control", needs=frozenset({"truth"}))
