"""The measure that a run goes by, from its settings and its labels, and its words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from nas_kd.analyse import frames

if TYPE_CHECKING:
    from nas_kd.runs.run import Run

WORDS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "map": "mAP",
    "r2": "R2",
}
OF_KIND = {"classes": "accuracy", "multilabel": "map", "regression": "r2"}


def kind_of(run: str | Path | Run) -> str:
    """Return what the labels of a run are: classes, multilabel or regression."""
    chosen = (frames.settings(run).get("data") or {}).get("kind")
    if chosen in OF_KIND:
        return str(chosen)
    images = frames.table(frames.folder_of(run) / "data.csv")
    labels = images[[name for name in images if str(name).startswith("label_")]]
    if "label" in images or labels.empty:
        return "classes"
    return "multilabel" if bool((labels.isin((0, 1)) | labels.isna()).all(axis=None)) else "regression"


def measure_of(run: str | Path | Run) -> str:
    """Return the name of the measure that search and hand-over of a run go by; frames call it accuracy."""
    chosen = frames.settings(run).get("metric")
    return str(chosen) if chosen in WORDS else OF_KIND[kind_of(run)]


def worded(text: str, measure: str) -> str:
    """Put the measure's name where a text speaks of accuracy."""
    return re.sub("(?<!balanced )accuracy(?!_)", WORDS[measure], text) if measure != "accuracy" else text


def collapses(measured: pd.DataFrame) -> dict[str, int]:
    """Return how many trainings of each role collapsed, where any did: their answers are those of a constant.

    Args:
        measured: from `nas_kd.analyse.table.runs_of`.
    """
    if "collapsed" not in measured:
        return {}
    counts = pd.to_numeric(measured["collapsed"]).fillna(0).groupby(measured["role"], sort=False).sum()
    return {str(role): int(count) for role, count in counts.items() if count}
