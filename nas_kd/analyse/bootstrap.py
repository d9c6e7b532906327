"""Paired bootstrap over archs and, within them, seeds: every score is evaluated on the same resamples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nas_kd.analyse.tau import Pairs, weighted_taus

RESAMPLES = 10_000
CHUNK = 64  # resamples drawn together; another number changes the draws


def drawn_archs(count: int, resamples: int, seed: int) -> np.ndarray:
    """Draw archs with replacement and return how often each is in each resample: (resamples, count)."""
    draws = np.random.default_rng(seed).integers(count, size=(resamples, count))
    draws += count * np.arange(resamples)[:, None]
    return np.bincount(draws.ravel(), minlength=resamples * count).reshape(resamples, count)


def resampled_taus(
    scores: np.ndarray,
    accuracies: np.ndarray,
    groups: Sequence[object],
    pairs: Sequence[Pairs],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> np.ndarray:
    """Draw archs with replacement inside each group, and for each of them its seeds with replacement.

    Args:
        scores: (M, N) scores, higher is better; NaN where missing.
        accuracies: (N, S) accuracy of each arch and seed, NaN where not trained; each arch has at least one.
        groups: (N,) the stratum of each arch.
        pairs: sets of pairs over which tau-b is computed.
        resamples: number of resamples R.

    Returns:
        (len(pairs), M, R) tau-b; NaN where a resample has nothing to compare.

    Source: Efron 1979; an arch that is drawn twice is a tie with itself.
    """
    # separate generators for archs and seeds: the archs of a resample do not depend on the seeds
    rng, seeds_rng = (np.random.default_rng([seed, stream]) for stream in range(2))
    names = np.asarray(groups, dtype=object)
    strata = [np.flatnonzero(names == name) for name in dict.fromkeys(names.tolist())]
    known = np.isfinite(accuracies)
    filled = np.where(known, accuracies, 0.0)
    times = np.zeros((resamples, len(names)))  # how often each arch is drawn
    means = np.empty((resamples, len(names)))
    for start in range(0, resamples, CHUNK):
        part = slice(start, min(start + CHUNK, resamples))
        count = part.stop - start
        for rows in strata:
            times[part, rows] = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=count)
        means[part] = _seed_means(filled, known, count, seeds_rng)
    return np.stack([weighted_taus(scores, means, times, chosen) for chosen in pairs])


def _seed_means(filled: np.ndarray, known: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return means over seeds drawn with replacement from those that each arch has: (count, N)."""
    trained = known.sum(1)
    means = np.empty((count, len(filled)))
    for number in np.unique(trained):
        rows = np.flatnonzero(trained == number)
        # existing seeds moved to the front
        values = np.take_along_axis(filled[rows], np.argsort(~known[rows], axis=1, kind="stable"), axis=1)
        times = rng.multinomial(number, np.full(number, 1 / number), size=(count, len(rows)))
        means[:, rows] = (times * values[None, :, :number]).sum(2) / number
    return means


class Interval(NamedTuple):
    """A bootstrap interval of a tau, or of a difference of two.

    Args:
        low: lower end of its 95 % interval.
        high: upper end.
        error: its standard error.
        p: two-sided p-value for zero.
    """

    low: float
    high: float
    error: float
    p: float


def interval_of(drawn: np.ndarray) -> Interval:
    """Summarise the resamples of a tau, or of a difference of two.

    Args:
        drawn: (R,) values; NaN is ignored.

    Returns:
        Percentile interval, standard error, and as p-value twice the smaller share of resamples on one side of 0 (at
        least 2 / (R + 1)).
    """
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) < 2:
        return Interval(*[math.nan] * 4)
    low, high = np.percentile(drawn, [2.5, 97.5])
    side = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return Interval(float(low), float(high), float(drawn.std(ddof=1)), min(1.0, 2 * (side + 1) / (len(drawn) + 1)))
