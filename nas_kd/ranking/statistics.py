"""Rank statistics of scores against a noisy ground accuracy, overall and among archs of equal size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from nas_kd.analyse.tau import all_pairs, pairs_within, tau_b
from nas_kd.config.checks import MIN_ARCHS


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Return Spearman's rho over the archs with both values; NaN if one ranking is constant."""
    from scipy.stats import rankdata

    a = np.asarray(x, dtype=float)
    b = np.asarray(y, dtype=float)
    known = np.isfinite(a) & np.isfinite(b)
    a = a[known]
    b = b[known]
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def partial_tau(x: ArrayLike, y: ArrayLike, z: ArrayLike) -> float:
    """Return Kendall's partial tau of two rankings, controlling for a third.

    Args:
        x: (N,) score.
        y: (N,) ground accuracy.
        z: (N,) the variable to control for, such as log MACs.

    Returns:
        The partial tau; NaN if z ranks like x or y.

    Source: Kendall 1942, Partial rank correlation.
    """
    a, b, c = (np.asarray(values, dtype=float) for values in (x, y, z))
    known = np.isfinite(a) & np.isfinite(b) & np.isfinite(c)
    pairs = all_pairs(len(known)).known(np.where(known, 0.0, math.nan))
    xy, xz, yz = (tau_b(*two, pairs) for two in ((a, b), (a, c), (b, c)))
    rest = (1 - xz**2) * (1 - yz**2)
    return (xy - xz * yz) / math.sqrt(rest) if rest > 1e-12 else math.nan


def residual_tau(x: ArrayLike, y: ArrayLike, z: ArrayLike) -> float:
    """Return tau-b of the residuals of x and y after linear regression on z; arguments as in `partial_tau`."""
    a, b, c = (np.asarray(values, dtype=float) for values in (x, y, z))
    known = np.isfinite(a) & np.isfinite(b) & np.isfinite(c)
    design = np.stack([np.ones(known.sum()), c[known]], axis=1)
    rests = [values[known] - design @ np.linalg.lstsq(design, values[known], rcond=None)[0] for values in (a, b)]
    # residuals at rounding level are ties
    scales = [1e-9 * max(1.0, float(np.abs(values[known]).max(initial=0.0))) for values in (a, b)]
    one, other = (np.round(rest / scale) for rest, scale in zip(rests, scales, strict=True))
    return tau_b(one, other, all_pairs(int(known.sum())))


def regret(score: ArrayLike, accuracy: ArrayLike, cost: ArrayLike, budget: float, top: int) -> float:
    """Return the loss in accuracy from training only the archs with the best scores within a budget.

    Args:
        score: (N,) higher is better; an arch with NaN is never chosen.
        accuracy: (N,) ground truth, higher is better; NaN if unknown.
        cost: (N,) cost of each arch.
        top: number of archs to train; equal scores are taken in the order of the rows.

    Returns:
        The accuracy of the best arch within the budget minus that of the best chosen one; NaN if no arch is
        within it or none has a score.
    """
    s, t, c = (np.asarray(values, dtype=float) for values in (score, accuracy, cost))
    inside = np.flatnonzero((c <= budget) & np.isfinite(t))
    scored = inside[np.isfinite(s[inside])]
    if not len(scored):
        return math.nan
    chosen = scored[np.argsort(-s[scored], kind="stable")[:top]]
    return float(t[inside].max() - t[chosen].max())


class Noise(NamedTuple):
    """The noise of a ground truth.

    Args:
        archs: number of archs with at least two seeds.
        seeds: mean number of seeds per arch.
        seed_sd: standard deviation between seeds of an arch.
        arch_sd: standard deviation between archs, without that between seeds.
        reliability: share of the variance of the archs' means that is not due to seeds.
        split_half: mean tau-b between the means of two halves of the seeds.
        ceiling: tau-b of a perfect score with the means, assuming normal distributions.
    """

    archs: int
    seeds: float
    seed_sd: float
    arch_sd: float
    reliability: float
    split_half: float
    ceiling: float


def noise_of(accuracy: np.ndarray, groups: Sequence[object] | None = None) -> Noise:
    """Estimate the noise of a ground truth from its seeds.

    Args:
        accuracy: (N, S) accuracy of each arch and seed; NaN if not trained.
        groups: (N,) bands, if only the order inside them counts; None is one group.

    Returns:
        The noise; NaN if no arch has two seeds. Variances between archs are within the groups.

    Source: analysis of variance with one factor; for normal values tau = 2/pi arcsin(r).
    """
    names = np.zeros(len(accuracy), dtype=int) if groups is None else np.asarray(groups, dtype=object)
    known = np.isfinite(accuracy).any(1)
    values = accuracy[known]
    names = names[known]
    nan = math.nan
    counts = np.isfinite(values).sum(1)
    several = int((counts >= 2).sum())
    if not several:
        return Noise(0, nan, nan, nan, nan, nan, nan)
    means = np.nanmean(values, axis=1)  # archs with one seed are noisier, and count as such
    within = float(np.nansum((values - means[:, None]) ** 2) / (counts - 1).sum())
    centred = [means[names == name] - means[names == name].mean() for name in dict.fromkeys(names.tolist())]
    freedom = sum(len(part) - 1 for part in centred)
    split = split_half(values, names)
    if freedom < 1:
        return Noise(several, float(counts.mean()), math.sqrt(within), nan, nan, split, nan)
    total = float(sum((part**2).sum() for part in centred) / freedom)
    between = max(0.0, total - within * float((1 / counts).mean()))
    reliability = between / total if total > 0 else nan
    ceiling = 2 / math.pi * math.asin(math.sqrt(reliability)) if reliability == reliability else nan
    return Noise(several, float(counts.mean()), math.sqrt(within), math.sqrt(between), reliability, split, ceiling)


def split_half(accuracy: np.ndarray, groups: Sequence[object] | np.ndarray | None = None) -> float:
    """Return the mean tau-b between the means of two halves of the seeds, over all ways to halve them.

    Args:
        accuracy: (N, S) accuracy of each arch and seed; archs without all seeds are dropped. A seed that was only
            started is dropped instead: one that fewer than half as many archs have as the second seed.
        groups: (N,) bands, if only the order inside them counts.

    Returns:
        The mean; NaN with fewer than two seeds or eight archs. With an odd number, each seed is left out once.
    """
    if accuracy.shape[1] < 2:
        return math.nan
    trained = np.isfinite(accuracy).sum(0)
    accuracy = accuracy[:, 2 * trained >= np.sort(trained)[-2]]
    full = np.isfinite(accuracy).all(1)
    values = accuracy[full]
    seeds = accuracy.shape[1]
    if len(values) < MIN_ARCHS:
        return math.nan
    names = np.zeros(len(full)) if groups is None else np.asarray(groups, dtype=object)
    pairs = pairs_within(names[full].tolist())
    taus = []
    half = seeds // 2
    for one in combinations(range(seeds), half):
        rest = [seed for seed in range(seeds) if seed not in one]
        for two in combinations(rest, half):
            if one < two:  # each pair of halves once
                taus.append(tau_b(values[:, one].mean(1), values[:, two].mean(1), pairs))
    return float(np.mean(taus))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for multiple testing, in the same order.

    Args:
        p_values: (M,) p-values; NaN is kept and does not count.

    Source: Holm 1979.
    """
    p = np.asarray(p_values, dtype=float)
    known = np.flatnonzero(np.isfinite(p))
    adjusted = np.full(len(p), math.nan)
    least = 0.0
    for rank, index in enumerate(known[np.argsort(p[known], kind="stable")]):
        least = max(least, min(1.0, (len(known) - rank) * p[index]))
        adjusted[index] = least
    return adjusted.tolist()


def detectable(standard_error: float, power: float = 0.8, level: float = 0.05) -> float:
    """Return the difference that a two-sided test detects with this power, given its standard error."""
    from scipy.stats import norm

    return float((norm.ppf(1 - level / 2) + norm.ppf(power)) * standard_error)
