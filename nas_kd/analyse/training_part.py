"""The part of a report that shows how the networks of a run were trained and rated."""

from __future__ import annotations

from pathlib import Path

from nas_kd.analyse import frames, html
from nas_kd.analyse.curves import curve_figure, retrain_figure
from nas_kd.analyse.writer import Writer

RATING_HEADS = {
    "stage": "stage",
    "rows": "rows",
    "rated": "rated",
    "images": "images",
    "tau_half_full": "tau-b, half-time against end",
    "tau_score_macs": "tau-b, score against MACs",
    "score_min": "lowest score",
    "score_median": "median score",
    "score_max": "highest score",
}


def suffix_of(search: str, names: list[str]) -> str:
    """Return a suffix for the files of all searches of a run but the first."""
    return "" if search == names[0] else "_" + search.split("/")[-1]


def training_part(root: Path, writer: Writer) -> list[str]:
    """Show the curves of all trainings, and the ratings by stage.

    Args:
        root: run folder.
        writer: where the figures go.
    """
    body = []
    for stage, title in (("teacher", "Teacher"), ("supernet", "Supernet"), ("blockwise", "Blockwise")):
        rows = frames.table(root / stage / "metrics.csv")
        if len(rows) and "epoch" in rows:
            body += writer.figure(f"curve_{stage}", curve_figure(rows, title, writer.measure), "")
    names = frames.searches(root) or ["search"]
    for search in names:
        caption = "Accuracy on the rate split, which is not used for training."
        caption = caption if len(names) == 1 else f"Students of {search}. {caption}"
        body += writer.figure(f"curve_retrain{suffix_of(search, names)}", retrain_figure(root, search), caption)
    ratings = frames.table(root / "blockwise" / "summary.csv")
    if len(ratings):
        body.append("<h3>Ratings by stage</h3>")
        heads = {name: head for name, head in RATING_HEADS.items() if name in ratings}
        numbers = {
            str(c): html.fixed(3) if ratings[c].dtype.kind == "f" else html.whole
            for c in ratings
            if ratings[c].dtype.kind in "if"
        }
        body.append(html.table(ratings, heads, numbers))
    return ["<h2>Training</h2>", *body] if body else []
