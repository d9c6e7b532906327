"""Whether archs are matched to a teacher: the same archs, taught by two or more of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from nas_kd.analyse.bootstrap import interval_of, resampled_taus
from nas_kd.analyse.tau import all_pairs, pairs_within, tau_b
from nas_kd.config.checks import MIN_ARCHS
from nas_kd.errors import SettingError


def two_way(values: np.ndarray) -> pd.DataFrame:
    """Part the variance of accuracies into archs, teachers, their interaction and seeds.

    The same seed of an arch begins with the same weights and order under every teacher, so its accuracies are
    not independent: what they have in common is a source of its own (``seed``), and the interaction is tested
    against what is left. Archs are a sample, teachers are those that there are.

    Args:
        values: (N, T, S) accuracy of each arch under each teacher from each seed; all known.

    Returns:
        One row a source: source, sum_squares, freedom, mean_square, against (the source that its F is taken
        over), F, p, and sd, the standard deviation that this source alone gives (0 where none is seen).

    Raises:
        SettingError: a value is not known, or there are fewer than two archs, teachers or seeds.

    Source: Fisher's analysis of variance, archs by teachers with seeds as blocks inside archs.
    """
    from scipy.stats import f as f_distribution

    if values.ndim != 3 or min(values.shape) < 2 or not np.isfinite(values).all():
        legal = "accuracies of two or more archs, teachers and seeds, none missing"
        raise SettingError("truth", f"shape {values.shape}", legal, "train the missing ones, or leave their archs out")
    archs, teachers, seeds = values.shape
    grand = values.mean()
    by_arch = values.mean((1, 2))
    by_teacher = values.mean((0, 2))
    crossed = values.mean(2) - by_arch[:, None] - by_teacher[None, :] + grand
    blocks = values.mean(1) - by_arch[:, None]
    rest = values - values.mean(2)[:, :, None] - blocks[:, None, :]
    table = {  # sum of squares, freedom, values behind each mean, what it is tested against
        "arch": (teachers * seeds * ((by_arch - grand) ** 2).sum(), archs - 1, teachers * seeds, "seed"),
        "teacher": (archs * seeds * ((by_teacher - grand) ** 2).sum(), teachers - 1, archs * seeds, "arch x teacher"),
        "arch x teacher": (seeds * (crossed**2).sum(), (archs - 1) * (teachers - 1), seeds, "rest"),
        "seed": (teachers * (blocks**2).sum(), archs * (seeds - 1), teachers, "rest"),
        "rest": ((rest**2).sum(), archs * (teachers - 1) * (seeds - 1), 1, ""),
    }
    means = {source: total / freedom for source, (total, freedom, _, _) in table.items()}
    rows: list[dict[str, Any]] = []
    for source, (total, freedom, repeats, against) in table.items():
        noise = means.get(against, 0.0)
        ratio = means[source] / noise if noise > 0 else math.nan
        known = math.isfinite(ratio)
        p = float(f_distribution.sf(ratio, freedom, table[against][1])) if known else math.nan
        rows.append(
            {
                "source": source,
                "sum_squares": float(total),
                "freedom": freedom,
                "mean_square": float(means[source]),
                "against": against,
                "F": float(ratio),
                "p": p,
                "sd": math.sqrt(max(0.0, means[source] - noise) / repeats),
            }
        )
    return pd.DataFrame(rows)


def own_and_other(
    truth: np.ndarray,
    scores: np.ndarray,
    teachers: Sequence[str],
    groups: Sequence[object],
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare a teacher's own score with the other teachers' on its own students.

    Args:
        truth: (N, T, S) accuracy of each arch under each teacher from each seed; NaN where it is not known.
        scores: (T, N) one score, measured against each teacher; higher is better.
        teachers: (T,) their names.
        groups: (N,) bands; archs are compared inside them. One group compares all.
        resamples: bootstrap resamples over archs with their seeds inside.
        seed: seed of the resamples.

    Returns:
        One row a teacher, then their mean: teacher, archs, own (tau-b of its score with its students), other
        (mean tau-b of the others' scores with its students), difference, low, high (95 %), p.

    Raises:
        SettingError: fewer than eight archs.
    """
    if len(truth) < MIN_ARCHS:
        raise SettingError("truth", f"{len(truth)} archs", f"at least {MIN_ARCHS} archs taught by every teacher")
    pairs = all_pairs(len(truth)) if len(set(groups)) < 2 else pairs_within(groups)
    rows = []
    drawn = []
    for index, name in enumerate(teachers):
        values = truth[:, index]
        order = [index, *(other for other in range(len(teachers)) if other != index)]
        taus = [tau_b(scores[which], np.nanmean(values, axis=1), pairs) for which in order]
        # the same seed draws the same archs for every teacher
        sample = resampled_taus(scores[order], values, groups, [pairs], resamples=resamples, seed=seed)[0]
        gap = sample[0] - sample[1:].mean(0)
        drawn.append(gap)
        other = float(np.mean(taus[1:]))
        rows.append({"teacher": name, "archs": len(truth), "own": taus[0], "other": other} | _gap(taus[0] - other, gap))
    means = {name: float(np.mean([row[name] for row in rows])) for name in ("own", "other", "difference")}
    mean = {"teacher": "mean", "archs": len(truth)} | means
    return pd.DataFrame([*rows, mean | _gap(means["difference"], np.mean(drawn, axis=0))])


def _gap(difference: float, drawn: np.ndarray) -> dict[str, float]:
    found = interval_of(drawn)
    return {"difference": difference, "low": found.low, "high": found.high, "p": found.p}


def common_truth(tables: Sequence[pd.DataFrame]) -> tuple[list[str], np.ndarray]:
    """Bring the truths of several teachers together: the archs that every teacher taught.

    Args:
        tables: for each teacher its rows: key, seed, accuracy.

    Returns:
        The keys of the archs that every teacher taught from one seed or more, in the first table's order, and
        (N, T, S) accuracies of all seeds, NaN where there is none.

    Raises:
        SettingError: there is no such arch.
    """
    wide = [
        table.pivot_table(index="key", columns="seed", values="accuracy", aggfunc="first", sort=False)
        for table in tables
    ]
    seeds = sorted(set().union(*(set(table.columns) for table in wide)))
    keys = [key for key in wide[0].index if all(key in table.index for table in wide)]
    if not keys:
        raise SettingError("truth", "no arch in common", "tables of the same archs", "train them under each teacher")
    values = [table.reindex(index=keys, columns=seeds).to_numpy(dtype=float) for table in wide]
    return keys, np.stack(values, axis=1)


def crossed_truth(tables: Sequence[pd.DataFrame]) -> tuple[list[str], np.ndarray]:
    """Bring the truths of several teachers together: the archs that every teacher taught from the same seeds.

    Args:
        tables: for each teacher its rows: key, seed, accuracy.

    Returns:
        The keys of the archs that every teacher taught from every common seed, in the first table's order, and
        (N, T, S) accuracies. Later seeds that leave fewer than half of the archs have only begun: they are left out.

    Raises:
        SettingError: no arch was taught by all from two seeds.
    """
    keys, values = common_truth(tables)
    values = values[:, :, np.isfinite(values).any(0).all(0)]  # a seed that one teacher never had is not common
    full = {count: np.isfinite(values[:, :, :count]).all((1, 2)) for count in range(2, values.shape[2] + 1)}
    enough = [count for count, kept in full.items() if kept.any() and 2 * kept.sum() >= full[2].sum()]
    if enough:
        kept = full[max(enough)]
        return [key for key, ours in zip(keys, kept, strict=True) if ours], values[kept][:, :, : max(enough)]
    legal = "tables of the same archs from two or more seeds"
    raise SettingError("truth", f"{len(keys)} archs in common", legal, "train more of the archs under each teacher")
