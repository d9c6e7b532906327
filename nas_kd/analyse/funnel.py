"""The decision path of a search as a funnel: how many archs each step left, by what, and where the found one stood."""

from __future__ import annotations

import math
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from nas_kd.analyse import frames
from nas_kd.analyse.choice import FILE, handed_over, indistinguishable
from nas_kd.analyse.figures import weights_of
from nas_kd.analyse.measure import as_accuracy, measure_of, scored_subnets
from nas_kd.analyse.table import final_table

if TYPE_CHECKING:
    from nas_kd.runs.run import Run

COLUMNS = ["step", "archs", "by", "found"]


def funnel_table(run: str | Path | Run, search: str = "search", results: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the steps from the whole space to the student that is handed over, as far as the run has come.

    Args:
        run: run folder.
        search: the search's folder in the run.
        results: from `final_table`, where it is known already.

    Returns:
        One row a step: step, archs (how many are in it), by (what they are chosen by or compared with), found (where
        the found arch stands in it, in words; empty where that is not known).
    """
    root = frames.folder_of(run)
    results = final_table(root, search) if results is None else results
    steps = [_space(root), *_rated(root, search), _scored(root, search), _tuned(root, search), _short(root, search)]
    steps += [_retrained(root, search, results), _handed(root, search, results)]
    return pd.DataFrame([step for step in steps if step is not None], columns=COLUMNS)


def funnel_part(table: pd.DataFrame) -> list[str]:
    """Draw a funnel as rows of a page, whose bars are as long as the numbers have digits."""
    if len(table) < 2:
        return []
    longest = max(1.0, *(math.log10(1 + count) for count in table["archs"]))
    rows = []
    for step in table.to_dict("records"):
        share = 100 * math.log10(1 + step["archs"]) / longest
        told = f'<span class="soft">{escape(step["found"])}</span>' if step["found"] else ""
        rows.append(
            f'<li><span class="step">{escape(step["step"])}</span>'
            f'<span class="bar"><span class="fill" style="width:{share:.1f}%"></span></span>'
            f'<span class="count">{step["archs"]:,}</span><span>{escape(step["by"])}</span>{told}</li>'
        )
    note = "Bars are logarithmic. Every number can be counted in the run's tables."
    return ["<h2>How it was decided</h2>", f'<ol class="funnel">{"".join(rows)}</ol>', f'<p class="soft">{note}</p>']


def _space(root: Path) -> dict[str, Any] | None:
    size = frames.mapping(root / "space.json").get("size")
    if not isinstance(size, int):
        return None
    of = "cuts of the teacher" if frames.is_derived(root) else "archs of the space"
    return _step("space", size, of)


def _rated(root: Path, search: str) -> list[dict[str, Any]]:
    """Return the rated choices, whose sums stand for all archs, and the front of these sums."""
    if not frames.guided(root, search):
        return []
    tables = [frames.table(path) for path in sorted((root / "blockwise").glob("stage_*.csv"))]
    what = "units" if frames.is_derived(root) else "stages"
    found = []
    if rows := sum(map(len, tables)):
        found.append(_step("rated", rows, f"choices of {len(tables)} {what}, each by itself against the teacher"))
    if len(front := frames.front(root, search)):
        found.append(_step("front", len(front), "that no other beats in both the sum of ratings and MACs"))
    return found


def _scored(root: Path, search: str) -> dict[str, Any] | None:
    scored = scored_subnets(root, search)
    if not len(scored):
        return None
    taught = "kl" in scored and bool(scored["kl"].notna().any())
    by = "KL to the teacher" if taught else measure_of(root).words
    place = _place(scored, "kl" if taught else "accuracy", root, search)
    return _step("scored", len(scored), f"whole subnets, by their {by} with {weights_of(root)}", place)


def _tuned(root: Path, search: str) -> dict[str, Any] | None:
    rows = frames.table(root / search / "tuned.csv")
    if "tuned_kl" not in rows:
        return None
    place = _place(rows, "tuned_kl", root, search)
    return _step("tuned", len(rows), "by their KL after an epoch of their own", place)


def _short(root: Path, search: str) -> dict[str, Any] | None:
    rows = as_accuracy(frames.table(root / search / "top.csv"), measure_of(root))
    if "select_accuracy" not in rows:
        return None
    rows = rows.drop_duplicates("key")
    last = rows[rows["short_epochs"] == rows["short_epochs"].max()] if "short_epochs" in rows else rows
    rounds = f", {len(last)} of them for {int(last['short_epochs'].max())} epochs" if len(last) < len(rows) else ""
    by = f"trained briefly{rounds}; by {measure_of(root).words} on select"
    return _step("short trainings", len(rows), by, _place(last, "select_accuracy", root, search))


def _retrained(root: Path, search: str, results: pd.DataFrame) -> dict[str, Any] | None:
    table = results[(results["role"] != "teacher") & (results["seeds"] > 0)]
    if not len(table):
        return None
    measure = measure_of(root)
    decided = as_accuracy(frames.table(root / search / FILE), measure)
    place = _place(decided, "select_accuracy", root, search) if "select_accuracy" in decided else ""
    most = int(table["seeds"].max())
    by = f"from {'one seed' if most == 1 else f'up to {most} seeds'}, rivals among them; by {measure.words} on select"
    return _step("retrained", table["arch"].nunique(), by, place)


def _handed(root: Path, search: str, results: pd.DataFrame) -> dict[str, Any] | None:
    if not len(frames.table(root / search / FILE)):
        return None
    same = indistinguishable(results)
    role = handed_over(root, search).replace("_", " ")
    others = f"{len(same)} others cannot be told apart from it on the test images" if same else ""
    return _step("handed over", 1, f"{role}: the found one, unless another is better by a standard error", others)


def _step(name: str, archs: int, by: str, found: str = "") -> dict[str, Any]:
    return dict(zip(COLUMNS, (name, archs, by, found), strict=True))


def _place(rows: pd.DataFrame, column: str, root: Path, search: str) -> str:
    """Say where the found arch stands among those of a step; nothing where it is not among them."""
    known = rows[rows[column].notna()].drop_duplicates("key")
    mine = known.loc[known["key"] == frames.best(root, search).get("key"), column]
    if not len(mine):
        return ""
    value = float(mine.iloc[0])
    lower = column.endswith("kl")
    ahead = int((known[column] < value).sum() if lower else (known[column] > value).sum())
    measure = measure_of(root)
    shown = f"{value:.3g}" if lower else f"{measure.sign * measure.factor * value:.{measure.digits}f}{measure.symbol}"
    return f"the found one: {shown}, place {ahead + 1} of {len(known)}"
