"""Rank statistics of scores against a noisy ground truth, overall and among archs of one size."""

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
    """Return Spearman's rho over the archs that both rankings know; NaN where one is constant."""
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
    """Correlate two rankings with what both owe to a third taken out.

    Args:
        x: (N,) score.
        y: (N,) ground truth.
        z: (N,) what is held fixed, such as log MACs.

    Returns:
        Kendall's partial tau; NaN where z ranks as x or y does.

    Source: Kendall 1942, Partial rank correlation.
    """
    a, b, c = (np.asarray(values, dtype=float) for values in (x, y, z))
    known = np.isfinite(a) & np.isfinite(b) & np.isfinite(c)
    pairs = all_pairs(len(known)).known(np.where(known, 0.0, math.nan))
    xy, xz, yz = (tau_b(*two, pairs) for two in ((a, b), (a, c), (b, c)))
    rest = (1 - xz**2) * (1 - yz**2)
    return (xy - xz * yz) / math.sqrt(rest) if rest > 1e-12 else math.nan


def residual_tau(x: ArrayLike, y: ArrayLike, z: ArrayLike) -> float:
    """Return tau-b of what straight lines in z leave of x and of y; arguments as `partial_tau`."""
    a, b, c = (np.asarray(values, dtype=float) for values in (x, y, z))
    known = np.isfinite(a) & np.isfinite(b) & np.isfinite(c)
    design = np.stack([np.ones(known.sum()), c[known]], axis=1)
    rests = [values[known] - design @ np.linalg.lstsq(design, values[known], rcond=None)[0] for values in (a, b)]
    # what is a line of z but for rounding is a tie, not an order
    scales = [1e-9 * max(1.0, float(np.abs(values[known]).max(initial=0.0))) for values in (a, b)]
    one, other = (np.round(rest / scale) for rest, scale in zip(rests, scales, strict=True))
    return tau_b(one, other, all_pairs(int(known.sum())))


def regret(score: ArrayLike, truth: ArrayLike, cost: ArrayLike, cap: float, top: int) -> float:
    """Say what is lost by training only the best few of a score within a budget.

    Args:
        score: (N,) higher is better; an arch with NaN is never chosen.
        truth: (N,) what was found by training, higher is better; NaN where it is not known.
        cost: (N,) cost of each arch.
        cap: budget.
        top: how many are trained; equal scores are taken in the order of the rows.

    Returns:
        The ground truth of the best arch within the budget less that of the best of the chosen; NaN when none is
        within it or none has a score.
    """
    s, t, c = (np.asarray(values, dtype=float) for values in (score, truth, cost))
    inside = np.flatnonzero((c <= cap) & np.isfinite(t))
    scored = inside[np.isfinite(s[inside])]
    if not len(scored):
        return math.nan
    chosen = scored[np.argsort(-s[scored], kind="stable")[:top]]
    return float(t[inside].max() - t[chosen].max())


class Noise(NamedTuple):
    """How much of a ground truth is noise.

    Args:
        archs: archs with two seeds or more, which tell what seeds do.
        seeds: mean number of seeds of all archs, whose means are judged.
        seed_sd: standard deviation between seeds of an arch.
        arch_sd: standard deviation between archs, without the seeds' part; 0 where that is all.
        reliability: share of the variance of the archs' means that is not the seeds'.
        split_half: mean tau-b between the means of two halves of the seeds.
        ceiling: tau-b that a score without fault would have with the means, for normal values.
    """

    archs: int
    seeds: float
    seed_sd: float
    arch_sd: float
    reliability: float
    split_half: float
    ceiling: float


def noise_of(truth: np.ndarray, groups: Sequence[object] | None = None) -> Noise:
    """Measure the noise of a ground truth from its seeds.

    Args:
        truth: (N, S) accuracy of each arch and seed; NaN where it is not trained.
        groups: (N,) bands, when only the order inside them counts; None is one group.

    Returns:
        Its noise; NaN where no arch has two seeds. Variances between archs are those inside the groups.

    Source: analysis of variance with one factor; for normal values tau = 2/pi arcsin(r).
    """
    names = np.zeros(len(truth), dtype=int) if groups is None else np.asarray(groups, dtype=object)
    known = np.isfinite(truth).any(1)
    values = truth[known]
    names = names[known]
    nan = math.nan
    counts = np.isfinite(values).sum(1)
    several = int((counts >= 2).sum())
    if not several:
        return Noise(0, nan, nan, nan, nan, nan, nan)
    means = np.nanmean(values, axis=1)  # those of one seed are as noisy as they are judged
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


def split_half(truth: np.ndarray, groups: Sequence[object] | np.ndarray | None = None) -> float:
    """Return the mean tau-b between the means of two halves of the seeds, over all ways to halve them.

    Args:
        truth: (N, S) accuracy of each arch and seed; archs that lack a seed are left out. A seed that has only
            begun is left out instead: one that fewer than half as many archs have as the second seed.
        groups: (N,) bands, when only the order inside them counts.

    Returns:
        The mean; NaN with fewer than two seeds or eight archs. An odd seed is left out in turn.
    """
    if truth.shape[1] < 2:
        return math.nan
    trained = np.isfinite(truth).sum(0)
    truth = truth[:, 2 * trained >= np.sort(trained)[-2]]
    full = np.isfinite(truth).all(1)
    values = truth[full]
    seeds = truth.shape[1]
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
    """Adjust p-values for their number.

    Args:
        p_values: (M,) p-values; a NaN stays one and does not count.

    Returns:
        (M,) adjusted ones, in the same order.

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
    """Return the difference that a two-sided test finds with this power, from its standard error."""
    from scipy.stats import norm

    return float((norm.ppf(1 - level / 2) + norm.ppf(power)) * standard_error)
