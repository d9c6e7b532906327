"""The measure that a run goes by, from its settings and its labels, and its words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from nas_kd.analyse import frames
from nas_kd.config.measures import ACCURACY, MEASURES, Measure
from nas_kd.config.nouns import outside_markup

if TYPE_CHECKING:
    from nas_kd.runs.run import Run

OF_KIND = {"classes": "accuracy", "multilabel": "map", "regression": "r2"}


def kind_of(run: str | Path | Run) -> str:
    """Return what the labels of a run are: classes, multilabel or regression."""
    chosen = frames.section(run, "data").get("kind")
    if isinstance(chosen, str) and chosen in OF_KIND:
        return str(chosen)
    images = frames.table(frames.folder_of(run) / "data.csv")
    labels = images[[name for name in images if str(name).startswith("label_")]]
    if "label" in images or labels.empty:
        return "classes"
    return "multilabel" if bool((labels.isin((0, 1)) | labels.isna()).all(axis=None)) else "regression"


def measure_of(run: str | Path | Run) -> Measure:
    """Return the measure that search and hand-over of a run go by."""
    chosen = frames.settings(run).get("metric")
    return MEASURES[chosen if isinstance(chosen, str) and chosen in MEASURES else OF_KIND[kind_of(run)]]


def worded(text: str, measure: Measure) -> str:
    """Put the measure's name where a text speaks of accuracy; words of the user stay as they are."""
    if measure == ACCURACY:
        return text
    return outside_markup(text, lambda bit: re.sub("(?<!balanced )accuracy(?!_)", measure.words, bit))


def as_accuracy(rows: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    """Return a table of a run with the columns of its measure called accuracy, signed so that higher is better.

    Runs made before columns had the measure's name called them accuracy in their files too.
    """
    return _renamed(rows, measure.name, "accuracy", measure.sign)


def as_measure(rows: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    """Return a table of `as_accuracy` with the measure's own name and values, to be stored or shown."""
    return _renamed(rows, "accuracy", measure.name, measure.sign)


def _renamed(rows: pd.DataFrame, old: str, new: str, sign: float) -> pd.DataFrame:
    names = {f"{part}{old}": f"{part}{new}" for part in ("", "select_", "first_", "test_") if f"{part}{old}" in rows}
    if old == new or not names:
        return rows
    rows = rows.drop(columns=[name for name in names.values() if name in rows]).rename(columns=names)
    return rows.assign(**{name: sign * pd.to_numeric(rows[name]) for name in names.values()})


def scored_subnets(run: str | Path | Run, search: str = "search") -> pd.DataFrame:
    """Return the distinct archs that a search evaluated as whole subnets, as `as_accuracy` has them."""
    rows = as_accuracy(frames.trials(run, search), measure_of(run))
    if not {"key", "accuracy"} <= set(rows.columns):
        return pd.DataFrame(columns=["kind", "role", "key", "score", "kl", "accuracy", "macs", "params"])
    rows = rows[rows["accuracy"].notna()]
    return rows.drop_duplicates("key").reset_index(drop=True)


def collapses(measured: pd.DataFrame) -> dict[str, int]:
    """Return how many trainings of each role collapsed, where any did: their answers are those of a constant.

    Args:
        measured: from `nas_kd.analyse.table.runs_of`.
    """
    if "collapsed" not in measured:
        return {}
    counts = pd.to_numeric(measured["collapsed"]).fillna(0).groupby(measured["role"], sort=False).sum()
    return {str(role): int(count) for role, count in counts.items() if count}
