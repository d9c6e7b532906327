"""Where the time of a run went: training, rating and scoring, measuring, by stage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from nas_kd.analyse import frames, html

if TYPE_CHECKING:
    from nas_kd.runs.run import Run

HEADS = {
    "stage": "stage",
    "training": "training",
    "answers": "the teacher's answers",
    "scoring": "rating and scoring",
    "measuring": "measuring on select and test",
    "seconds": "sum",
}
KINDS = {"epoch": "training", "answers": "answers", "measuring": "measuring"}  # all else is scoring


def times_table(run: str | Path | Run) -> pd.DataFrame:
    """Return the seconds of work of each stage, summed over processes.

    Args:
        run: run folder.

    Returns:
        One row a stage in the order in which they began: stage, training, answers, scoring, measuring and seconds,
        which is their sum; the last row is the run. Empty where nothing was timed.
    """
    timing = frames.table(frames.folder_of(run) / "timing.csv")
    if not {"stage", "what", "seconds"} <= set(timing.columns) or not len(timing):
        return pd.DataFrame(columns=list(HEADS))
    timing = timing.assign(
        stage=timing["stage"].astype(str).str.split("/").str[0],
        kind=timing["what"].map(KINDS).fillna("scoring"),
        seconds=pd.to_numeric(timing["seconds"]),
    )
    kinds = ["training", "answers", "scoring", "measuring"]
    found = timing.pivot_table(index="stage", columns="kind", values="seconds", aggfunc="sum", sort=False)
    found = found.reindex(index=timing["stage"].unique(), columns=kinds).fillna(0.0)
    found.loc["all"] = found.sum()
    return found.assign(seconds=found.sum(axis=1)).rename_axis("stage").reset_index()


def times_part(root: Path) -> list[str]:
    """Show the time of each stage; nothing where none was taken."""
    found = times_table(root)
    if not len(found):
        return []
    numbers = {str(name): html.fixed(1) for name in found if name != "stage"}
    note = "Seconds of work, summed over processes; reading data, and what takes no time worth a row, is not in it."
    return ["<h2>Time</h2>", html.table(found, HEADS, numbers), f'<p class="soft">{note}</p>']
