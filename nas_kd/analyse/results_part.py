"""The part of a report that compares the retrained students: one table, and its figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from nas_kd.analyse import frames, html
from nas_kd.analyse.choice import indistinguishable
from nas_kd.analyse.figures import students_figure
from nas_kd.analyse.measure import as_measure
from nas_kd.analyse.table import BESIDE, Columns, runs_of
from nas_kd.analyse.writer import Writer
from nas_kd.config.measures import MEASURES, Measure


def results_part(root: Path, search: str, suffix: str, results: pd.DataFrame, writer: Writer) -> list[str]:
    """Show what each student reaches on the test images.

    Args:
        root: run folder.
        search: the search's folder in the run.
        suffix: of the names of its files.
        results: from `nas_kd.analyse.table.final_table`.
        writer: where the tables go.
    """
    body: list[str] = []
    if len(results):
        writer.frame(f"results{suffix}.csv", results)
        writer.frame(f"seeds{suffix}.csv", as_measure(runs_of(root, search), writer.measure))
        numbers: dict[str, Callable[[object], str]] = {
            "agreement_mean_percent": html.fixed(2),
            "accuracy": str,
            "range": str,
            "gap": str,
        }
        numbers |= dict.fromkeys(("macs", "params", "seeds"), html.whole)
        names = Columns(writer.measure)
        beside = [name for name in names.beside if results[name].notna().any()]
        numbers |= dict.fromkeys(beside, html.fixed(2))
        body.append("<h2>Results</h2>")
        shown = _spread(results, writer.measure)
        body.append(html.table(shown, _heads(writer.measure, beside), numbers, _row_class))
        agreement = "; agreement is the share of test images for which student and teacher predict the same class"
        body.append(
            '<p class="soft">All students were retrained in the same way, once per seed. MACs are multiply-adds of '
            "convolutions and linear layers for one image, not FLOPs. Accuracy is the mean over the seeds with its "
            f"sample standard deviation{', lower being better' if writer.measure.lower else ''}"
            f"{agreement if frames.has_teacher(root) else ''}. The folder is that of the seed "
            "with the best accuracy on the select split; the test images were not used for any decision. The "
            "coloured row is handed over. Brackets: 95 % interval of the paired difference over test images and "
            "seeds; '=' marks intervals that include 0, where the two students cannot be told apart.</p>"
        )
    return body + writer.figure(
        f"students{suffix}",
        students_figure(root, search),
        "Large marks: mean over the seeds; small dots: single seeds; bars: lowest to highest.",
    )


def _heads(measure: Measure, beside: Sequence[str]) -> dict[str, str]:
    """Return the columns of the table of results and their heads."""
    percent = " (%)" if measure.percent else ""
    heads = {
        "role": "role",
        "arch": "arch",
        "macs": "MACs",
        "params": "parameters",
        "accuracy": f"test accuracy{percent}",
    }
    heads |= {"range": f"lowest to highest{percent}"}
    heads |= {"gap": f"minus the one handed over{' (points)' if measure.percent else ''}"}
    known = {f"{name}_mean_percent": MEASURES[name].title() for name in BESIDE}
    heads |= {name: known[name] for name in beside}
    return heads | {"agreement_mean_percent": "agreement (%)", "seeds": "seeds", "folder": "folder in the run"}


def _spread(results: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    """Format mean and standard deviation, and the range, in one column each."""
    dash = "–"
    names = Columns(measure)
    digits = measure.digits
    accuracy = []
    ranges = []
    gaps = []
    same = indistinguishable(results)
    for row in results.to_dict("records"):
        mean = row[names.mean]
        sd = row[names.sd]
        plain = f"{mean:.{digits}f}"
        accuracy.append(dash if pd.isna(mean) else plain if pd.isna(sd) else f"{plain} ± {sd:.{digits}f}")
        low = row[names.lowest]
        high = row[names.highest]
        ranges.append(dash if pd.isna(low) else f"{low:.{digits}f} {dash} {high:.{digits}f}")
        gap, least, most = row[names.gap], row[names.low], row[names.high]
        sign = "= " if row["role"] in same else ""
        gaps.append("" if pd.isna(gap) else f"{sign}{gap:+.{digits}f} [{least:.{digits}f}, {most:.{digits}f}]")
    return results.assign(accuracy=accuracy, range=ranges, gap=gaps)


def _row_class(row: Mapping[str, Any]) -> str:
    return "handed" if row["handed_over"] else str(row["role"])
