"""How far a run's scores can be trusted: their rank correlations, compared with those of MACs and parameters."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from nas_kd.analyse import frames
from nas_kd.analyse.correlation import Tau, in_band, kendall, kendall_difference
from nas_kd.analyse.measure import as_accuracy, measure_of, scored_subnets
from nas_kd.analyse.table import runs_of, student_table
from nas_kd.analyse.tau import tau_b
from nas_kd.config.checks import MIN_ARCHS

if TYPE_CHECKING:
    from nas_kd.runs.run import Run

NAMES = {
    "score": "sum of ratings",
    "kl": "KL to the teacher",
    "accuracy": "supernet accuracy",
    "macs": "MACs",
    "params": "parameters",
}
SIGN = {"score": -1.0, "kl": -1.0, "accuracy": 1.0, "macs": 1.0, "params": 1.0}
SUPERNET = "supernet accuracy"
SHORT = "short-training accuracy"
FINAL = "retrained accuracy"


class _GroundTruth(NamedTuple):
    """Accuracies that scores should predict."""

    name: str
    among: str
    rows: pd.DataFrame
    column: str
    predictors: tuple[str, ...]


def trust_table(run: str | Path | Run, search: str = "search", *, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Correlate every score with every accuracy that was measured later or more precisely.

    Args:
        run: run folder.
        search: the search's folder in the run.
        resamples: bootstrap resamples over archs; all scores of one ground truth use the same ones.
        seed: seed of the resampling.

    Returns:
        One row per ground truth, set of archs and score: truth, among, archs (their number), score, tau, low and high
        (Kendall's tau-b with its 95 % interval; positive is better, whatever the sign of the score), and
        minus_macs, minus_macs_low, minus_macs_high, minus_params ... (the paired difference to the tau of
        the size). NaN for fewer than eight archs.
    """
    rows: list[dict[str, Any]] = []
    for truth in _ground_truths(run, search):
        for predictor in truth.predictors:
            known = truth.rows.dropna(subset=[predictor, truth.column])
            row: dict[str, Any] = {
                "truth": truth.name,
                "among": truth.among,
                "archs": len(known),
                "score": NAMES[predictor],
            }
            few = len(known) < MIN_ARCHS
            signed = SIGN[predictor] * known[predictor]
            target = known[truth.column]
            nothing = (math.nan, math.nan, math.nan)
            tau = nothing if few else kendall(signed, target, resamples, seed)
            row |= dict(zip(("tau", "low", "high"), tau, strict=True))
            for size in ("macs", "params"):
                gap = nothing
                if not few and predictor not in ("macs", "params"):
                    gap = kendall_difference(signed, known[size], target, resamples, seed)
                names = (f"minus_{size}", f"minus_{size}_low", f"minus_{size}_high")
                row |= dict(zip(names, gap, strict=True))
            rows.append(row)
    return pd.DataFrame(rows)


def band_of(run: str | Path | Run) -> float:
    """Return the run's band of MACs, relative to the found arch."""
    return float(frames.section(run, "retrain").get("band", 0.05))


def _ground_truths(run: str | Path | Run, search: str) -> list[_GroundTruth]:
    scored = scored_subnets(run, search)
    top = as_accuracy(frames.table(frames.folder_of(run) / search / "top.csv"), measure_of(run))
    final = student_table(run, search)
    found = frames.best(run, search)
    cheap = ("score", "macs", "params")
    late = ("score", "kl", "accuracy", "macs", "params")
    truths = []
    if len(scored):
        truths.append(_GroundTruth(SUPERNET, "all scored subnets", scored, "accuracy", cheap))
        if found.get("macs"):
            band = band_of(run)
            near = in_band(scored, found["macs"], band)
            named = f"subnets within {100 * band:g} % of the found MACs"
            truths.append(_GroundTruth(SUPERNET, named, near, "accuracy", cheap))
        drawn = scored[scored["kind"] == "random"]
        if len(drawn) >= MIN_ARCHS:
            truths.append(_GroundTruth(SUPERNET, "subnets drawn within the budget", drawn, "accuracy", cheap))
    if len(top) and "select_accuracy" in top:
        top = top.drop_duplicates("key")
        present = tuple(name for name in late if name in top)
        trained = "first_accuracy" if "first_accuracy" in top else "select_accuracy"  # of equal length for all
        truths.append(_GroundTruth(SHORT, "finalists", top, trained, present))
    if len(final):
        truths.append(_GroundTruth(FINAL, "retrained students", final, "test_accuracy", late))
    return [
        truth._replace(predictors=tuple(name for name in truth.predictors if _known(truth.rows, name)))
        for truth in truths
    ]


def _known(rows: pd.DataFrame, name: str) -> bool:
    return name in rows and (not len(rows) or bool(rows[name].notna().any()))


def seed_ceiling(run: str | Path | Run, search: str = "search") -> float:
    """Return the mean tau between the retrained accuracies of two seeds, an upper limit for scores."""
    measured = runs_of(run, search).drop_duplicates(["key", "seed"])
    if not len(measured):
        return math.nan
    table = measured.pivot(index="key", columns="seed", values="test_accuracy").astype(float).dropna()
    if len(table) < MIN_ARCHS or table.shape[1] < 2:
        return math.nan
    taus = [tau_b(table[a], table[b]) for a, b in combinations(table.columns, 2)]
    return float(pd.Series(taus).mean())


def verdicts(table: pd.DataFrame) -> list[str]:
    """Describe the sum of ratings, or without one the supernet accuracy, in a trust table.

    Args:
        table: from `trust_table`.

    Returns:
        Sentences; limitations start with ``Caveat:``.
    """
    sentences: list[str] = []
    if not len(table):
        return sentences
    for (truth, among), rows in table.groupby(["truth", "among"], sort=False):
        taus = rows.set_index("score")
        judged = next((NAMES[name] for name in ("score", "accuracy") if NAMES[name] in taus.index), None)
        if judged is None:
            continue
        mine: Any = taus.loc[judged]
        if math.isnan(mine["tau"]):
            why = f"only {int(mine['archs'])} are known, and a rank correlation needs at least {MIN_ARCHS}"
            if mine["archs"] >= MIN_ARCHS:
                why = "one of the two is constant, so there is nothing to rank"
            sentences.append(f"Caveat: {judged} against the {truth} of {among}: {why}.")
            continue
        where = f"against the {truth} of {among} ({int(mine['archs'])})"
        sentences.append(
            f"{judged[0].upper()}{judged[1:]} {where}: tau-b {Tau(mine['tau'], mine['low'], mine['high'])}; "
            f"MACs {_number(taus, 'macs')}, parameters {_number(taus, 'params')}."
        )
        if mine["low"] <= 0.0 <= mine["high"]:
            sentences.append(f"Caveat: this interval includes 0: no evidence that the score ranks {among} at all.")
        elif mine["high"] < 0.0:
            sentences.append(f"Caveat: the {judged} ranks {among} the wrong way round.")
        for size in ("macs", "params"):
            if NAMES[size] in taus.index and taus.loc[NAMES[size], "tau"] > mine["tau"]:
                gap = Tau(*(mine[f"minus_{size}{end}"] for end in ("", "_low", "_high")))
                sure = "" if gap.high < 0.0 else " (the interval includes 0)"
                sentences.append(f"Caveat: {NAMES[size]} alone rank {among} better: difference {gap}{sure}.")
    return sentences


def _number(taus: pd.DataFrame, size: str) -> str:
    name = NAMES[size]
    return f"{round(float(taus['tau'][name]), 2) + 0.0:.2f}" if name in taus.index else "not known"
