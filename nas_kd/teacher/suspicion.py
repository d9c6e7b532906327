"""Statistics of answers: at chance, in another order, surely better; from class numbers alone."""

from __future__ import annotations

import numpy as np
from torch import Tensor

SURE = 1e-3  # probability of a false alarm
GAIN = 0.05  # share of the images that a change must win to be worth a word


def near_chance(right: int, count: int, chance: float) -> bool | None:
    """Return whether answers are surely near chance, False where too few images tell, None where they are above it.

    Exact binomial: they are above it where so many right ones have a probability below `SURE`, and near it where even
    the upper end of the accuracy's interval is less than a quarter of the way to 1.
    """
    from scipy.stats import binomtest

    if chance >= 1 - 1e-9:  # all images are of one class, or so are all answers and labels
        return None
    test = binomtest(right, count, chance, alternative="greater")
    if test.pvalue < SURE:
        return None
    highest = binomtest(right, count).proportion_ci(1 - 2 * SURE).high
    return bool(highest < chance + (1 - chance) / 4)


def surely_better(right: Tensor, than: Tensor) -> bool:
    """Return whether one set of answers, (N,) of right ones, beats another on the same images (exact McNemar test)."""
    from scipy.stats import binomtest

    wins = int((right & ~than).sum())
    losses = int((than & ~right).sum())
    if wins - losses < max(GAIN * len(right), 1):
        return False
    return bool(binomtest(wins, wins + losses, 0.5, alternative="greater").pvalue < SURE)


def other_order(answers: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray | None:
    """Return the output that means each class, (C,), where another order is surely right; else None.

    The order that agrees with most labels is found on one half of the images and judged on the other: of random answers
    the best order always looks better than chance on the images that it was found on.

    Args:
        answers: (N,) outputs of the largest logit.
        labels: (N,) class numbers.
    """
    import torch

    judged = np.zeros(len(labels), dtype=bool)
    half = np.arange(len(labels)) % 2 == 0
    for seen, other in ((half, ~half), (~half, half)):
        order = _best_order(answers[seen], labels[seen], classes)
        judged[other] = order[labels[other]] == answers[other]
    if not surely_better(torch.from_numpy(judged), torch.from_numpy(answers == labels)):
        return None
    return _best_order(answers, labels, classes)


def _best_order(answers: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    from scipy.optimize import linear_sum_assignment

    counts = np.zeros((classes, classes))
    np.add.at(counts, (labels, answers), 1)
    counts += 0.5 * np.eye(classes)  # classes that were not seen stay where they are
    return np.asarray(linear_sum_assignment(counts, maximize=True)[1])
