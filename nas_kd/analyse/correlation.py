"""Kendall's tau-b with a bootstrap interval over architectures, and its paired difference."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from nas_kd.config.checks import LEAST

MATRIX = 2000  # above this many archs the matrix of signs no longer fits comfortably


class Tau(NamedTuple):
    """A rank correlation and its interval.

    Args:
        tau: Kendall's tau-b, -1 to 1; NaN with fewer than eight pairs or a constant side.
        low: lower end of the 95 % bootstrap interval.
        high: upper end.
    """

    tau: float
    low: float
    high: float

    def __str__(self) -> str:
        """Word it as ``0.29 [0.18, 0.40]``."""
        tau, low, high = (round(value, 2) + 0.0 for value in self)  # + 0.0 turns -0.0 into 0.0
        return f"{tau:.2f} [{low:.2f}, {high:.2f}]"


def kendall(a: ArrayLike, b: ArrayLike, resamples: int = 2000, seed: int = 0) -> Tau:
    """Correlate two rankings of the same archs.

    Args:
        a: (N,) values of one ranking; pairs with a NaN are left out.
        b: (N,) values of the other.
        resamples: bootstrap resamples over archs.
        seed: seed of the resampling; equal N and seed draw the same archs.

    Returns:
        tau-b and its 95 % percentile interval.

    Source: Kendall 1945 (tau-b, which corrects for ties); Efron 1979 (bootstrap).
    """
    x, y = _pairs(a, b)
    return Tau(_tau(x, y), *_interval(_resampled(x, y, resamples, seed)))


def kendall_difference(a: ArrayLike, other: ArrayLike, truth: ArrayLike, resamples: int = 2000, seed: int = 0) -> Tau:
    """Say how much better one score ranks than another, both on the same resampled archs.

    Args:
        a: (N,) one score.
        other: (N,) the score it is compared with.
        truth: (N,) what both shall rank.
        resamples: bootstrap resamples over archs.
        seed: seed of the resampling.

    Returns:
        tau(a) - tau(other) and the 95 % interval of this difference.
    """
    x, y, z = _pairs(a, other, truth)
    drawn = _resampled(x, z, resamples, seed) - _resampled(y, z, resamples, seed)
    return Tau(_tau(x, z) - _tau(y, z), *_interval(drawn))


def in_band(frame: pd.DataFrame, centre: float, band: float = 0.05, cost: str = "macs") -> pd.DataFrame:
    """Return the rows whose cost lies near one value, among which size no longer decides.

    Args:
        frame: one row an arch.
        centre: cost in the middle of the band.
        band: half its width as a share of ``centre``.
        cost: the column.

    Returns:
        The rows within ``centre * (1 -+ band)``.
    """
    return frame[(frame[cost] - centre).abs() <= band * centre]


def _pairs(*columns: ArrayLike) -> list[np.ndarray]:
    values = np.stack([np.asarray(column, dtype=float).ravel() for column in columns])
    return list(values[:, np.isfinite(values).all(0)])


def _tau(x: np.ndarray, y: np.ndarray) -> float:
    from scipy.stats import kendalltau

    if len(x) < LEAST or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(kendalltau(x, y).statistic)


def _resampled(x: np.ndarray, y: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Return tau-b of each resample; NaN where a resample is constant."""
    n = len(x)
    if n < LEAST:
        return np.full(resamples, np.nan)
    if n > MATRIX:
        return np.array([_tau(x[draw], y[draw]) for draw in _draws(n, resamples, seed)])
    # tau-b of a resample is a ratio of quadratic forms in how often each arch was drawn
    weights = _counts(n, resamples, seed)
    sx, sy = (np.sign(v[:, None] - v[None, :]).astype(np.float32) for v in (x, y))

    def form(matrix: np.ndarray) -> np.ndarray:
        return ((weights @ matrix) * weights).sum(1, dtype=np.float64)

    with np.errstate(invalid="ignore", divide="ignore"):
        return form(sx * sy) / np.sqrt(form(np.abs(sx)) * form(np.abs(sy)))


def _draws(n: int, resamples: int, seed: int) -> np.ndarray:
    """Draw which archs each resample consists of: (resamples, n) indices."""
    return np.random.default_rng(seed).integers(n, size=(resamples, n))


@lru_cache(maxsize=4)
def _counts(n: int, resamples: int, seed: int) -> np.ndarray:
    """Count how often each resample holds each arch: (resamples, n); every score of a table uses the same."""
    draws = _draws(n, resamples, seed) + n * np.arange(resamples)[:, None]
    return np.bincount(draws.ravel(), minlength=resamples * n).reshape(resamples, n).astype(np.float32)


def _interval(drawn: np.ndarray) -> tuple[float, float]:
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return float("nan"), float("nan")
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)
