"""Training curves of teacher, supernet and retrained students."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from nas_kd.analyse import frames
from nas_kd.analyse.measure import measure_of
from nas_kd.analyse.palette import style_of
from nas_kd.analyse.svg import SOFT, Plot, Style, sheet
from nas_kd.analyse.table import students, trained_in
from nas_kd.config.measures import ACCURACY, MEASURES, Measure

if TYPE_CHECKING:
    from nas_kd.runs.run import Run


CURVES = (
    Style("#0072b2"),
    Style("#d55e00", dash="6 3"),
    Style("#009e73", dash="2 3"),
    Style("#9a5a8b", dash="8 3 2 3"),
    Style(SOFT, dash="1 3"),
    Style("#7a6a00", dash="10 4"),
)


def curve_figure(rows: pd.DataFrame, title: str, measure: Measure = ACCURACY) -> str | None:
    """Draw accuracy and loss of one training by epoch.

    Args:
        rows: its metrics.csv.
        title: name of the training.
        measure: the run's.

    Returns:
        An SVG document, or None if there is nothing to draw.
    """
    shown = {
        "accuracy": [name for name in map(str, rows) if _measured(name) and rows[name].notna().any()],
        "loss": [name for name in map(str, rows) if name.startswith("loss") and rows[name].notna().any()],
    }
    labels = list(dict.fromkeys(_label(name, names) for names in shown.values() for name in names))
    styles = {label: CURVES[index % len(CURVES)] for index, label in enumerate(labels)}
    plots = []
    for heading, names in shown.items():
        unit, factor = (_axis(measure), measure.factor) if heading == "accuracy" else ("training loss", 1.0)
        plot = Plot(f"{title}: {heading}", "epoch", unit, height=280, integer_x=True)
        for name in names:
            label = _label(name, names)
            plot.add(label, styles[label], rows["epoch"], factor * rows[name], line=True, marks=False)
        if names:
            plots.append(plot)
    return sheet(f"{title}: curves", plots) if plots else None


def _measured(name: str) -> bool:
    """Return whether a column holds a measure of the rate split."""
    return _bare(name) in MEASURES


def _bare(name: str) -> str:
    """Return the measure in the name of a column."""
    return name.removeprefix("rate_").removesuffix("_largest").removesuffix("_smallest")


def _axis(measure: Measure) -> str:
    """Return the axis title of what a training reaches, in which `worded` puts the measure's name."""
    return ACCURACY._replace(percent=measure.percent).title("rate split")


def _label(name: str, names: list[str]) -> str:
    """Return the legend label of a column: ``loss_largest`` is "largest", a single loss has none."""
    if len(names) == 1:
        return ""
    plain = name.removeprefix("loss")
    if (measured := _bare(name)) in MEASURES:
        plain = name.removeprefix(measured)
    plain = plain.strip("_").replace("_", " ")
    return {"": "total loss", "others": "others, mean"}.get(plain, plain)


def retrain_figure(run: str | Path | Run, search: str = "search") -> str | None:
    """Draw the retrainings of a search: one line per role, the mean of its seeds.

    Trainings of the same arch by another method, and intermediate ones, are not included.
    """
    every = frames.metrics(run)
    listed = students(run, search)
    measure = measure_of(run)
    if not len(every) or not len(listed):
        return None
    plots = []
    for heading, column, factor, unit in (
        ("accuracy", f"rate_{measure.name}", measure.factor, _axis(measure)),
        ("loss", "loss", 1.0, "training loss"),
    ):
        if column not in every:
            continue
        plot = Plot(f"Retraining: {heading}, mean of seeds", "epoch", unit, height=280, integer_x=True)
        for student in listed.to_dict("records"):
            role = student["role"]
            ours = every["stage"].str.fullmatch(rf"{re.escape(trained_in(student))}/seed_\d+")
            mine = every[ours & every[column].notna()]
            if not len(mine):
                continue
            label, style = style_of(str(role))
            means = mine.groupby("epoch")[column].mean() * factor
            dash = {"found": "", "random": "2 3"}.get(label, "7 3")
            drawn = Style(style.colour, dash=dash, width=2.2 if role == "found" else 1.5)
            plot.add(label, drawn, list(means.index), list(means), line=True, marks=False)
        if plot.series and any(math.isfinite(v) for s in plot.series for v in s.y):
            plots.append(plot)
    return sheet("Retraining curves", plots) if plots else None
