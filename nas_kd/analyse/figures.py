"""Figures of the front, the students, the ranking and its trustworthiness."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from nas_kd.analyse import frames
from nas_kd.analyse.correlation import Tau, kendall
from nas_kd.analyse.measure import measure_of, scored_subnets
from nas_kd.analyse.palette import BUDGET, FOUND, FRONT, TEACHER, TRIAL, style_of
from nas_kd.analyse.svg import (
    GRID,
    INK,
    SOFT,
    Plot,
    Style,
    document,
    line,
    mark,
    sheet,
    text,
    text_width,
    ticks,
)
from nas_kd.analyse.table import runs_of, student_table, students
from nas_kd.analyse.trust import SIGN
from nas_kd.config.checks import MIN_ARCHS
from nas_kd.config.measures import Measure
from nas_kd.solve.pareto import pareto

if TYPE_CHECKING:
    from nas_kd.runs.run import Run

ERROR_NAMES = {
    "nsr": "noise to signal",
    "nmse": "normalised MSE",
    "relative_l1": "relative L1 error",
    "local": "noise to signal",
    "replace_one": "replace-one KL",
}


def weights_of(run: str | Path | Run) -> str:
    """Return what weights subnets are scored with."""
    return "the teacher's weights" if frames.is_derived(run) else "supernet weights"


def shared_title(run: str | Path | Run, measure: Measure) -> str:
    """Return the axis title of what subnets reach with shared weights."""
    return f"accuracy with {weights_of(run)} ({'%, ' if measure.percent else ''}rate split)"


def final_title(measure: Measure) -> str:
    """Return the axis title of what students reach in the end."""
    return f"test accuracy after retraining{' (%)' if measure.percent else ''}"


def score_title(run: str | Path | Run, search: str = "search") -> str:
    """Return the axis title of the sum of ratings, with the stages' error and whether its sum is weighted."""
    error = frames.stage_error(run)
    if error is None:
        return "sum of ratings (lower is better)"
    summed = "weighted sum" if frames.inputs(run, search).get("search.weights") else "sum"
    parts = "units" if frames.is_derived(run) else "stages"
    return f"{summed} of the {parts}' {ERROR_NAMES.get(error, error)} (lower is better)"


def unit_of(values: pd.Series, what: str) -> tuple[float, str]:
    """Return the divisor and the axis title of a cost."""
    most = values.max() if len(values) else 0
    for size, word in ((1e9, "billions"), (1e6, "millions"), (1e3, "thousands")):
        if most >= size:
            return size, f"{what} ({word})"
    return 1.0, what


def front_figure(run: str | Path | Run, search: str = "search") -> str | None:
    """Draw the exact front and all scored subnets, MACs against score and against supernet accuracy."""
    exact = frames.front(run, search)
    scored = scored_subnets(run, search)
    if not len(exact) and not len(scored):
        return None
    every = pd.concat([frame["macs"] for frame in (exact, scored) if "macs" in frame])
    unit, x_title = unit_of(every, "MACs of one image")
    left = Plot("Sum of ratings", x_title, score_title(run, search))
    measure = measure_of(run)
    shown = measure.sign * measure.factor  # what a signed value is multiplied by
    right = Plot("Whole subnets, shared weights", x_title, shared_title(run, measure))
    groups = _groups(run, search, scored)
    if len(exact):
        left.add("exact front of the score", FRONT, exact["macs"] / unit, exact["score"], line=True, marks=False)
    rated = len(exact) > 0 or "score" in scored and bool(scored["score"].notna().any())
    for label, style, rows in groups:
        if rated:
            left.add(label, style, rows["macs"] / unit, rows["score"], tips=_tips(rows))
        right.add(label, style, rows["macs"] / unit, shown * rows["accuracy"], tips=_tips(rows))
    if len(scored):
        best = pareto(scored, "macs", "accuracy", lower=False)
        dashed = Style(SOFT, dash="3 3", width=1.2)
        right.add(
            f"{'lowest' if measure.lower else 'highest'} accuracy within these MACs",
            dashed,
            best["macs"] / unit,
            shown * best["accuracy"],
            line=True,
            marks=False,
        )
    found = frames.best(run, search)
    for name, limits in (("budget", "budget"), ("least", "at_least")):
        limit = (found.get(limits) or {}).get("macs")
        if limit is not None:
            left.verticals.append((name, limit / unit, BUDGET))
            right.verticals.append((name, limit / unit, BUDGET))
    plots = ([left] if rated else []) + ([right] if len(scored) else [])
    both = "sum of ratings and against supernet accuracy" if rated else "supernet accuracy"
    return sheet(f"MACs against {both}", plots)


def _groups(run: str | Path | Run, search: str, scored: pd.DataFrame) -> list[tuple[str, Style, pd.DataFrame]]:
    """Split scored subnets into trials, drawn ones, controls and the found one; the last is drawn on top."""
    if not len(scored):
        return []
    key = frames.best(run, search).get("key")
    listed = students(run, search)
    roles = dict(zip(listed["key"], listed["role"], strict=True))
    named = scored["role"].fillna("") if "role" in scored else pd.Series("", scored.index)
    group = scored["key"].map(roles).astype(object).fillna(named.where(scored["kind"] == "control", ""))
    by_lot = (group == "random") | ((group == "") & (scored["kind"] == "random"))
    group = group.where(group != "", "trial").where(~by_lot, "by lot")
    group = group.where(scored["key"] != key, "found")
    parts = []
    known = ("trial", "by lot", "random", "largest_macs", "largest_params", "found")
    group = group.where(~group.str.startswith("random_"), "random")
    for role in dict.fromkeys([*known[:-1], *(name for name in group.unique() if name not in known), "found"]):
        rows = scored[group == role]
        label, style = ("search trial", TRIAL) if role == "trial" else style_of(role)
        if len(rows):
            parts.append((label, style, rows))
    return parts


def _tips(rows: pd.DataFrame) -> list[str]:
    label = rows["label"] if "label" in rows else rows["key"]
    return [
        f"{name}\n{int(macs):,} MACs, {int(params):,} parameters"
        for name, macs, params in zip(label, rows["macs"], rows["params"], strict=True)
    ]


def students_figure(run: str | Path | Run, search: str = "search") -> str | None:
    """Draw the retrained students: MACs and parameters against test accuracy, the teacher as a horizontal line."""
    measured = runs_of(run, search)
    measured = measured[pd.to_numeric(measured["test_accuracy"]).notna()]
    if not len(measured):
        return None
    teacher = frames.mapping(frames.folder_of(run) / "retrain" / "teacher.json")
    measure = measure_of(run)
    plots = []
    for cost, what in (("macs", "MACs of one image"), ("params", "parameters")):
        unit, x_title = unit_of(measured[cost], what)
        plot = Plot(
            f"Retrained students by {'MACs' if cost == 'macs' else 'parameters'}", x_title, final_title(measure)
        )
        if (reached := teacher.get(f"test_{measure.name}")) is not None:
            plot.levels.append(("teacher", measure.factor * reached, TEACHER))
        for role, rows in measured.groupby("role", sort=False):
            label, style = style_of(str(role))
            values = measure.sign * measure.factor * rows["test_accuracy"].astype(float)
            tip = f"{role}: {values.mean():.{measure.digits}f}{measure.symbol}, {len(values)} seeds"
            x = float(rows[cost].iloc[0]) / unit
            plot.add("", Style(style.colour, size=2.0, opacity=0.6), [x] * len(values), list(values))
            plot.add(label, style, [x], [values.mean()], tips=[tip], low=[values.min()], high=[values.max()])
        plots.append(plot)
    return sheet("Size against test accuracy of the retrained students", plots)


def ranking_figure(run: str | Path | Run, search: str = "search") -> str | None:
    """Draw the score against accuracies, with Kendall's tau-b of each panel."""
    scored = scored_subnets(run, search)
    final = student_table(run, search)
    title = score_title(run, search)
    measure = measure_of(run)
    shown = measure.sign * measure.factor
    plots = []
    if len(scored) and "score" in scored and scored["score"].notna().any():
        plot = Plot(_headed("All scored subnets", scored, "score", "accuracy"), title, shared_title(run, measure))
        for label, style, rows in _groups(run, search, scored):
            plot.add(label, style, rows["score"], shown * rows["accuracy"], tips=_tips(rows))
        plots.append(plot)
    final = final.dropna(subset=["score"])
    if len(final) >= 2:
        plot = Plot(_headed("Retrained students", final, "score", "test_accuracy"), title, final_title(measure))
        for role, score, accuracy in zip(final["role"], final["score"], final["test_accuracy"], strict=True):
            label, style = style_of(str(role))
            plot.add(label, style, [score], [shown * accuracy], tips=[str(role)])
        plots.append(plot)
    return sheet("Sum of ratings against accuracy", plots) if plots else None


def _headed(title: str, rows: pd.DataFrame, score: str, target: str) -> str:
    if len(rows) < MIN_ARCHS:
        return f"{title}: too few for a tau-b ({len(rows)})"
    tau = kendall(SIGN[score] * rows[score], rows[target])
    return f"{title}: tau-b {tau}"


def trust_figure(table: pd.DataFrame) -> str | None:
    """Draw every tau-b with its interval, grouped by the predicted accuracy."""
    rows = table[table["tau"].notna()] if len(table) else table
    if not len(rows):
        return None
    width = 940
    left = 330
    right = 920
    groups = list(rows.groupby(["truth", "among"], sort=False))
    height = 46 + 24 * len(groups) + 20 * len(rows)
    marks, (x0, x1) = ticks([-0.2, 1.0, *rows["low"], *rows["high"]], 8)

    def px(value: float) -> float:
        return left + (value - x0) / (x1 - x0) * (right - left)

    out = [line(px(v), 8, px(v), height - 42, SOFT if v == 0 else GRID) for v, _ in marks]
    y = 0.0
    for (target, among), part in groups:
        y += 24
        count = f"{part['archs'].min()}" if part["archs"].nunique() == 1 else f"up to {part['archs'].max()}"
        heading = f"{target} of {among} ({count})"
        wide = text_width(heading, 12)
        out.append(f'<rect x="8" y="{y - 13:.1f}" width="{wide:.0f}" height="18" fill="#fff"/>')
        out.append(text(10, y, heading, weight=600, size=12))
        for row in part.to_dict("records"):
            y += 20
            own = row["score"] not in ("MACs", "parameters")
            colour = FOUND.colour if own else SOFT
            out.append(line(px(row["low"]), y - 4, px(row["high"]), y - 4, colour, 2.2))
            out.append(mark(px(row["tau"]), y - 4, Style(colour, "circle" if own else "square", 4.2)))
            label = f"{row['score']}  {Tau(row['tau'], row['low'], row['high'])}"
            out.append(text(left - 14, y, label, anchor="end", colour=INK if own else SOFT))
    out += [text(px(v), height - 26, label, anchor="middle", colour=SOFT) for v, label in marks]
    title = "Kendall's tau-b with 95 % interval (1: perfect order, 0: none)"
    out.append(text((left + right) / 2, height - 6, title, anchor="middle", size=12))
    return document("Rank correlations", width, height, "\n".join(out))
