"""The paired difference of two trained networks on the same images, over all seeds."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Difference(NamedTuple):
    """A mean difference with its standard error.

    Args:
        mean: over images and seeds.
        error: its standard error.
        freedom: degrees of freedom of the standard error.
    """

    mean: float
    error: float
    freedom: float

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of Student's t."""
        from scipy.special import stdtrit  # the quantile; scipy.stats would take most of a second to import

        reach = float(stdtrit(self.freedom, 0.975)) * self.error if self.error else 0.0
        return self.mean - reach, self.mean + reach

    @property
    def significant(self) -> bool:
        """Whether the interval excludes 0."""
        low, high = self.interval
        return not low <= 0.0 <= high


def paired_difference(one: ArrayLike, other: ArrayLike) -> Difference:
    """Compare two networks, trained with the same seeds and evaluated on the same images.

    Images and seeds are both treated as samples: the question is whether one would still be better on other
    images of the kind and with other seeds. With one seed the variance over seeds is unknown, and the
    error is that over images only.

    Args:
        one: (S, N) score of each of N images, such as 1 if correctly classified, for each of S seeds.
        other: (S, N), likewise.

    Returns:
        The mean of ``one - other``, with variance (MS_seeds + MS_images - MS_residual) / (S N) from the mean squares of
        the two-way random-effects model; negative components count as 0.

    Source: Searle, Casella & McCulloch, Variance Components (1992), chapter 4; degrees of freedom by
    Satterthwaite (1946).
    """
    gaps = np.asarray(one, dtype=float) - np.asarray(other, dtype=float)  # (S, N)
    seeds, images = gaps.shape
    mean = float(gaps.mean())
    if images < 2:
        return Difference(mean, math.inf, 1.0)
    by_image = gaps.mean(0)
    over_images = float(seeds * by_image.var(ddof=1))
    if seeds < 2:
        return Difference(mean, math.sqrt(over_images / images), images - 1.0)
    by_seed = gaps.mean(1)
    over_seeds = float(images * by_seed.var(ddof=1))
    residuals = gaps - by_seed[:, None] - by_image + mean
    rest = float(np.square(residuals).sum() / ((seeds - 1) * (images - 1)))
    squares = np.array([over_seeds, over_images, rest])
    degrees = np.array([seeds - 1, images - 1, (seeds - 1) * (images - 1)])
    some = float(over_seeds > rest), float(over_images > rest)
    parts = np.array([*some, 1.0 - sum(some)]) * squares
    if not squares.any():
        return Difference(mean, 0.0, seeds - 1.0)
    freedom = parts.sum() ** 2 / np.square(parts / np.sqrt(degrees)).sum()
    return Difference(mean, math.sqrt(parts.sum() / (seeds * images)), float(freedom))
