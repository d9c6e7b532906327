"""How well each score ranks, compared with trivial ones and inside bands, with intervals and costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from nas_kd.analyse.bootstrap import RESAMPLES, interval_of, resampled_taus
from nas_kd.analyse.tau import all_pairs, pairs_within, tau_b
from nas_kd.config.checks import MIN_ARCHS
from nas_kd.config.measures import ACCURACY, Measure
from nas_kd.errors import SettingError
from nas_kd.ranking.statistics import detectable, holm, noise_of, partial_tau, regret, residual_tau, spearman

TOPS = (1, 5, 10)
BAND = "band "  # prefix of the names of groups of equal size
MAX_NAMES = 5  # archs without a score to list in a message
EVERYWHERE = "all archs"
INSIDE = "inside bands"


class Ranked(NamedTuple):
    """Ground truth and scores of the same archs.

    Args:
        archs: one row per arch: key, group, macs, ...; only those with ground truth.
        accuracies: (N, S) accuracy of each arch and seed, NaN if not trained.
        scores: (M, N) higher is better, NaN if missing.
        names: (M,) names of the scores.
        costs: one row per score: kind, needs, teacher_forwards, student_forwards, seconds, cpu_seconds.
        planned: the bands of the sample, including those without trained archs.
        measure: what the accuracies are, signed so that higher is better.
    """

    archs: pd.DataFrame
    accuracies: np.ndarray
    scores: np.ndarray
    names: list[str]
    costs: pd.DataFrame
    planned: tuple[str, ...] = ()
    measure: Measure = ACCURACY

    @property
    def bands(self) -> list[str]:
        """The bands with enough archs to rank."""
        return [band for band, size in self._sizes.items() if size >= MIN_ARCHS]

    @property
    def few(self) -> dict[str, int]:
        """The bands with too few archs to rank, and their numbers of archs."""
        return {band: size for band, size in self._sizes.items() if size < MIN_ARCHS}

    @property
    def _sizes(self) -> dict[str, int]:
        sizes = self.archs["group"].value_counts().to_dict()
        bands = sorted({*self.planned, *(str(name) for name in sizes if str(name).startswith(BAND))})
        return {band: int(sizes.get(band, 0)) for band in bands}


def joined(archs: pd.DataFrame, truth: pd.DataFrame, scores: pd.DataFrame) -> Ranked:
    """Join ground truth and scores of the same archs.

    Args:
        archs: the sample.
        truth: one row per arch and seed: key, seed, accuracy.
        scores: one row per score and arch, from ``measure_scores``.

    Raises:
        SettingError: a table has other archs, or fewer than eight are trained.
    """
    for name, table in (("truth", truth), ("scores", scores)):
        unknown = set(table["key"]) - set(archs["key"]) if len(table) else set()
        if unknown:
            expected = "a table of the archs in archs.csv"
            hint = "use another folder: these belong to another space, seed or sample"
            raise SettingError(f"rank.{name}", f"archs {', '.join(sorted(unknown)[:3])}", expected, hint)
    known = archs[archs["key"].isin(truth["key"])] if len(truth) else archs.head(0)
    if len(known) < MIN_ARCHS:
        expected = f"at least {MIN_ARCHS} trained archs for a rank correlation"
        raise SettingError("rank.truth", f"{len(known)} archs", expected, "train more of them: run the command again")
    table = truth.pivot_table(index="key", columns="seed", values="accuracy", aggfunc="first")
    values = table.reindex(known["key"]).to_numpy(dtype=float)
    names = list(dict.fromkeys(scores["score"]))
    signs = np.where(scores["better"] == "higher", 1.0, -1.0)
    wide = scores.assign(signed=signs * scores["value"]).pivot(index="score", columns="key", values="signed")
    matrix = wide.reindex(index=names, columns=known["key"]).to_numpy(dtype=float)
    grouped = scores.groupby("score", sort=False)
    sums = grouped[["teacher_forwards", "student_forwards", "seconds", "cpu_seconds"]].sum()
    costs = sums.join(grouped[["kind", "needs"]].first()).reindex(names)
    planned = tuple(sorted({str(name) for name in archs["group"] if str(name).startswith(BAND)}))
    return Ranked(known.reset_index(drop=True), values, matrix, names, costs, planned)


def noise_table(ranked: Ranked) -> pd.DataFrame:
    """Estimate the noise of the ground truth, overall, inside the bands and in each.

    Returns:
        One row per scope: scope, archs, seeds, seed_sd and arch_sd (percentage points, or the
        measure's unit), reliability, split_half
        (tau between the means of two halves of the seeds), ceiling (tau of a perfect score).
    """
    groups = ranked.archs["group"]
    scopes: list[tuple[str, np.ndarray, Sequence[object] | None]] = [(EVERYWHERE, np.ones(len(groups), bool), None)]
    if ranked.bands:
        inside = groups.isin(ranked.bands).to_numpy()
        scopes.append((INSIDE, inside, groups[inside].tolist()))
        scopes += [(band, (groups == band).to_numpy(), None) for band in ranked.bands]
    rows = []
    for scope, kept, names in scopes:
        found = noise_of(ranked.measure.factor * ranked.accuracies[kept], names)
        rows.append({"scope": scope} | found._asdict())
    return pd.DataFrame(rows)


def summarise(
    ranked: Ranked,
    *,
    primary: str,
    control: str,
    budgets: Sequence[float] = (),
    resamples: int = RESAMPLES,
    seed: int = 0,
    preparation: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Evaluate every score against the ground truth.

    Differences are of tau-b inside the bands, or over all archs if no band has enough of them (then the columns
    of the bands are NaN), on the same resamples of archs and seeds, and only on archs for which the score has a
    value. ``minus_size`` is against the best of the size controls, chosen again in every resample, which corrects for
    this choice. A score that learns from trained archs is also compared with what is learned from sizes only, which
    is better than each single size.

    Args:
        primary: name of the one score that is tested without correction.
        control: name of the one control that it is tested against.
        budgets: in MACs, for the regret.
        preparation: CPU minutes of what scores need: ``supernet``, ``blockwise``, ``truth``.

    Returns:
        One row per score, best tau inside the bands first.

    Raises:
        SettingError: primary or control is not among the scores.
    """
    for field, name in (("rank.primary", primary), ("rank.control", control)):
        if name not in ranked.names:
            raise SettingError(field, name, ", ".join(ranked.names), "choose one of the scores")
    archs = ranked.archs
    mean = np.nanmean(ranked.accuracies, axis=1)
    groups = archs["group"].tolist()
    macs = archs["macs"].to_numpy(dtype=float)
    everywhere = all_pairs(len(archs))
    inside = pairs_within(groups, ranked.bands) if ranked.bands else everywhere
    how = {"resamples": resamples, "seed": seed}
    drawn = resampled_taus(ranked.scores, ranked.accuracies, groups, [everywhere, inside], **how)
    sizes = [i for i, name in enumerate(ranked.names) if ranked.costs.loc[name, "kind"] == "size"]
    learns = ["truth" in str(needs).split() for needs in ranked.costs.loc[ranked.names, "needs"]]
    learned_controls = [
        i for i, name in enumerate(ranked.names) if ranked.costs.loc[name, "kind"] == "control" and learns[i]
    ]
    base = ranked.names.index(control)
    inside_taus = [tau_b(score, mean, inside) for score in ranked.scores]
    rows: list[dict[str, Any]] = []
    for index, (name, score) in enumerate(zip(ranked.names, ranked.scores, strict=True)):
        cost = ranked.costs.loc[name]
        ready = sum((preparation or {}).get(need, 0.0) for need in set(str(cost["needs"]).split()))
        row: dict[str, Any] = {
            "score": name,
            "kind": cost["kind"],
            "role": _role(name, str(cost["kind"]), primary, control),
            "archs": int(np.isfinite(score).sum()),
            "without_score": int((~np.isfinite(score)).sum()),
        }
        row |= {"tau": tau_b(score, mean, everywhere)} | _ends("tau", drawn[0, index]) | {"rho": spearman(score, mean)}
        if ranked.bands:
            row |= {"band_tau": inside_taus[index]} | _ends("band_tau", drawn[1, index])
        else:
            row |= dict.fromkeys(("band_tau", "band_tau_low", "band_tau_high"), math.nan)
        for band in ranked.bands:
            row[f"tau {band}"] = tau_b(score, mean, pairs_within(groups, [band]))
        row |= {
            "partial_tau": partial_tau(score, mean, np.log(macs)),
            "residual_tau": residual_tau(score, mean, np.log(macs)),
        }
        for number, budget in enumerate(budgets, 1):
            for top in TOPS:
                row[f"regret budget {number} top {top}"] = ranked.measure.factor * regret(
                    score, mean, macs, budget, top
                )
        taus = inside_taus
        samples = drawn[1]
        known = np.isfinite(score)
        if not known.all():
            others = np.where(known, ranked.scores, math.nan)
            taus = [tau_b(other, mean, inside) for other in others]
            samples = resampled_taus(others, ranked.accuracies, groups, [inside], **how)[0]
        row |= _gap("minus_control", taus[index] - taus[base], samples[index] - samples[base])
        if name == control:
            row |= dict.fromkeys([key for key in row if key.startswith("minus_control")], math.nan)
        controls = sizes + learned_controls if learns[index] and cost["kind"] == "score" else sizes
        most = float(_best(np.array([taus[i] for i in controls])))
        row |= _gap("minus_size", taus[index] - most, samples[index] - _best(samples[controls]))
        if cost["kind"] == "size":
            row |= dict.fromkeys([key for key in row if key.startswith("minus_size")], math.nan)
        row |= {
            "teacher_forwards": cost["teacher_forwards"],
            "student_forwards": cost["student_forwards"],
            "minutes": cost["seconds"] / 60,
            "cpu_minutes": cost["cpu_seconds"] / 60,
            "preparation_minutes": ready,
        }
        rows.append(row)
    frame = pd.DataFrame(rows)
    explored = (frame["role"] == "exploratory").to_numpy()
    for gap in ("minus_control", "minus_size"):
        adjusted = np.full(len(frame), math.nan)
        adjusted[explored] = holm(frame.loc[explored, f"{gap}_p"].tolist())
        adjusted[(frame["role"] == "primary").to_numpy()] = frame.loc[frame["role"] == "primary", f"{gap}_p"]
        place = list(frame.columns).index(f"{gap}_p") + 1
        frame.insert(place, f"{gap}_p_holm", adjusted)
    first = "band_tau" if ranked.bands else "tau"
    return frame.sort_values(first, ascending=False, kind="stable", ignore_index=True)


def _role(name: str, kind: str, primary: str, control: str) -> str:
    if name in (primary, control):
        return "primary" if name == primary else "primary control"
    return "exploratory" if kind == "score" else "control"


def _best(taus: np.ndarray) -> np.ndarray:
    """Return the maximum along the first axis, ignoring NaN, the tau of a constant control."""
    greatest = np.where(np.isnan(taus), -math.inf, taus).max(axis=0, initial=-math.inf)
    return np.where(np.isfinite(greatest), greatest, math.nan)


def _ends(name: str, drawn: np.ndarray) -> dict[str, float]:
    found = interval_of(drawn)
    return {f"{name}_low": found.low, f"{name}_high": found.high}


def _gap(name: str, difference: float, drawn: np.ndarray) -> dict[str, float]:
    found = interval_of(drawn)
    return {
        name: difference,
        f"{name}_low": found.low,
        f"{name}_high": found.high,
        f"{name}_p": found.p,
        f"{name}_detectable": detectable(found.error),
    }


def verdict(ranked: Ranked, summary: pd.DataFrame, noise: pd.DataFrame) -> list[str]:
    """Describe the results in sentences, limitations first."""
    scope, tau = (INSIDE, "band_tau") if ranked.bands else (EVERYWHERE, "tau")
    digits = ranked.measure.digits
    sentences = [
        f"{band.capitalize()} is left out: it has {count} trained archs, and a rank correlation needs {MIN_ARCHS}."
        " Train more of them: run the command again, or start with a larger sample."
        for band, count in ranked.few.items()
    ]
    if ranked.few and not ranked.bands:
        sentences.append("There are no results inside bands: the differences are over all archs, where size dominates.")
    limits = noise[noise["scope"] == scope].iloc[0]
    if limits["archs"] == 0:
        sentences.append("The ground truth has one seed: its noise and the tau of a perfect score are unknown.")
    else:
        sentences.append(
            f"Ground truth {scope}: standard deviation {limits['arch_sd']:.{digits}f}{ranked.measure.points} between"
            f" archs, {limits['seed_sd']:.{digits}f} between seeds ({limits['archs']} archs have two or more); tau"
            f" between halves of the seeds {limits['split_half']:.2f}, ceiling for a perfect score"
            f" {limits['ceiling']:.2f}."
        )
    main = summary[summary["role"] == "primary"].iloc[0]
    base = summary[summary["role"] == "primary control"].iloc[0]
    size = summary[summary["kind"] == "size"].sort_values(tau, ascending=False).iloc[:1]
    sentences.append(
        f"Primary score {main['score']}: tau {main[tau]:.2f} [{main[f'{tau}_low']:.2f},"
        f" {main[f'{tau}_high']:.2f}] {scope}; {base['score']} {base[tau]:.2f}; difference"
        f" {main['minus_control']:.2f} [{main['minus_control_low']:.2f}, {main['minus_control_high']:.2f}];"
        f" {len(summary)} scores on {main['archs']} archs; detectable with 80 % power:"
        f" {main['minus_control_detectable']:.2f}."
    )
    for row in size.to_dict("records") if main["kind"] != "size" else []:
        gap = f"{main['minus_size']:.2f} [{main['minus_size_low']:.2f}, {main['minus_size_high']:.2f}]"
        better = main["minus_size_low"] > 0
        word = "beats" if better else "does not beat"
        sentences.append(f"It {word} the best size control ({row['score']}, {row[tau]:.2f}): difference {gap}.")
    incomplete = summary[summary["without_score"] > 0]
    for row in incomplete.to_dict("records"):
        unknown = ranked.archs["key"][~np.isfinite(ranked.scores[ranked.names.index(row["score"])])]
        named = ", ".join(unknown.head(MAX_NAMES)) + (
            f" and {len(unknown) - MAX_NAMES} more" if len(unknown) > MAX_NAMES else ""
        )
        sentences.append(f"{row['score']} has no finite value for {len(unknown)} archs, which it cannot rank: {named}.")
    return sentences
