"""Kendall's tau-b with a bootstrap interval over architectures, and its paired difference."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from nas_kd.analyse.bootstrap import drawn_archs, interval_of
from nas_kd.analyse.tau import all_pairs, tau_b, weighted_taus
from nas_kd.config.checks import MIN_ARCHS


class Tau(NamedTuple):
    """A rank correlation and its interval.

    Args:
        tau: Kendall's tau-b, -1 to 1; NaN with fewer than eight archs or a constant ranking.
        low: lower end of the 95 % bootstrap interval.
        high: upper end.
    """

    tau: float
    low: float
    high: float

    def __str__(self) -> str:
        """Format it as ``0.29 [0.18, 0.40]``."""
        tau, low, high = (round(value, 2) + 0.0 for value in self)  # + 0.0 turns -0.0 into 0.0
        return f"{tau:.2f} [{low:.2f}, {high:.2f}]"


def kendall(a: ArrayLike, b: ArrayLike, resamples: int = 2000, seed: int = 0) -> Tau:
    """Correlate two rankings of the same archs.

    Args:
        a: (N,) values of one ranking; archs with a NaN are dropped.
        b: (N,) values of the other.
        resamples: bootstrap resamples over archs.
        seed: seed of the resampling; equal N and seed draw the same archs.

    Returns:
        tau-b and its 95 % percentile interval.

    Source: Kendall 1945 (tau-b, which corrects for ties); Efron 1979 (bootstrap).
    """
    x, y = _known(a, b)
    drawn = _resampled(np.stack([x]), y, resamples, seed)
    return _tau(_one(x, y), drawn[0])


def kendall_difference(a: ArrayLike, other: ArrayLike, target: ArrayLike, resamples: int = 2000, seed: int = 0) -> Tau:
    """Return how much better one score ranks than another, both on the same resampled archs.

    Args:
        a: (N,) one score.
        other: (N,) the other score.
        target: (N,) values that both should rank.
        resamples: bootstrap resamples over archs.
        seed: seed of the resampling.

    Returns:
        tau(a) - tau(other) and the 95 % interval of this difference.
    """
    x, y, z = _known(a, other, target)
    first, second = _resampled(np.stack([x, y]), z, resamples, seed)
    return _tau(_one(x, z) - _one(y, z), first - second)


def in_band(frame: pd.DataFrame, centre: float, band: float, cost: str = "macs") -> pd.DataFrame:
    """Return the rows whose cost is close to one value, so that size hardly matters.

    Args:
        frame: one row per arch.
        centre: cost at the centre of the band.
        band: half its width, relative to ``centre``.
        cost: the column.

    Returns:
        The rows within ``centre * (1 -+ band)``.
    """
    return frame[(frame[cost] - centre).abs() <= band * centre]


def _known(*columns: ArrayLike) -> list[np.ndarray]:
    values = np.stack([np.asarray(column, dtype=float).ravel() for column in columns])
    return list(values[:, np.isfinite(values).all(0)])


def _tau(tau: float, drawn: np.ndarray) -> Tau:
    interval = interval_of(drawn)
    return Tau(tau, interval.low, interval.high)


def _one(x: np.ndarray, y: np.ndarray) -> float:
    return tau_b(x, y) if len(x) >= MIN_ARCHS else math.nan


def _resampled(scores: np.ndarray, target: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Return (M, R) tau-b of (M, N) scores in each resample; NaN where a resample is constant."""
    count = len(target)
    if count < MIN_ARCHS:
        return np.full((len(scores), resamples), math.nan)
    return weighted_taus(scores, target, drawn_archs(count, resamples, seed), all_pairs(count))
