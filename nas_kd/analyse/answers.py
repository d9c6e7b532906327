"""The first screen of a report: which student, why, how far it can be trusted, and what other sizes give."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from nas_kd.analyse import frames, html
from nas_kd.analyse.choice import FILE, few_images, handed_over, indistinguishable, verdict
from nas_kd.analyse.measure import collapses, measure_of
from nas_kd.analyse.table import Columns, budget_words, final_table, runs_of
from nas_kd.config.measures import Measure

if TYPE_CHECKING:
    from nas_kd.runs.run import Run

NEAR = 0.05  # of the MACs: networks within it are of the same size
FACTORS = (0.5, 2.0)  # of the MACs, where the front is asked
SIZE_HEADS = {"network": "network", "times": "MACs, of this one's", "reaches": "reaches", "known": "by"}


def answers_part(root: Path, search: str, results: pd.DataFrame, steps: pd.DataFrame) -> list[str]:
    """Answer the four questions of a reader in short.

    Args:
        root: run folder.
        search: the search's folder in the run.
        results: from `nas_kd.analyse.table.final_table`.
        steps: from `nas_kd.analyse.funnel.funnel_table`.

    Returns:
        Parts of an HTML page; none before students were retrained.
    """
    table = results.set_index("role", drop=False)
    role = handed_over(root, search)
    if role not in table.index or not table.loc[role, "seeds"]:
        return []
    sizes = sizes_table(root, search, results)
    cards = [
        ("Which student?", _paragraphs(_which(root, search, table, role))),
        ("Why this one?", _paragraphs(_why(root, search, steps))),
        ("How far can I trust it?", _paragraphs(_trust(root, search, table))),
        ("What would a bigger or smaller one give?", _sizes(sizes)),
    ]
    inside = "".join(f"<section><h2>{escape(title)}</h2>{content}</section>" for title, content in cards)
    return [f'<div class="answers">{inside}</div>']


def sizes_table(run: str | Path | Run, search: str = "search", results: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return what networks that are smaller or larger than the one handed over reach.

    Args:
        run: run folder.
        search: the search's folder in the run.
        results: from `final_table`, where it is known already.

    Returns:
        One row a network, by MACs: network (role, and the search's folder where it is another one), macs, times (its
        MACs over those of the one handed over), reaches (the run's measure on the test images, or the sum of ratings),
        known (whether it was trained, or is known from its ratings alone). The nearest trained ones of each side, the
        teacher, and the archs of the exact front at half and at twice the MACs.
    """
    root = frames.folder_of(run)
    columns = ["network", "macs", "times", "reaches", "known"]
    measure = measure_of(root)
    results = final_table(root, search) if results is None else results
    macs = results.set_index("role")["macs"].get(handed_over(root, search))
    if macs is None or pd.isna(macs):
        return pd.DataFrame(columns=columns)
    rows = [
        row | {"macs": size, "times": size / macs}
        for row, size in (*_trained(root, search, results, measure), *_rated(root, search, int(macs)))
        if abs(size / macs - 1) > NEAR
    ]
    found = pd.DataFrame(rows, columns=columns).astype({"macs": float, "times": float})
    trained = found[found["known"] != "ratings alone"]
    sides = (trained[trained["times"] < 1].nlargest(2, "times"), trained[trained["times"] > 1].nsmallest(2, "times"))
    kept = pd.concat([*sides, trained[trained["network"] == "teacher"], found[found["known"] == "ratings alone"]])
    return kept.drop_duplicates().sort_values("macs", kind="stable", ignore_index=True)


def _trained(root: Path, search: str, results: pd.DataFrame, measure: Measure) -> list[tuple[dict[str, Any], int]]:
    names = Columns(measure)
    found = []
    for name in frames.searches(root) or [search]:
        table = results if name == search else final_table(root, name)
        for row in table[table["macs"].notna() & table[names.mean].notna()].to_dict("records"):
            called = str(row["role"]).replace("_", " ")
            if name != search and row["role"] == "teacher":
                continue
            called += "" if name == search else f" of {name}"
            seeds = f"{row['seeds']} seed" + ("s" if row["seeds"] > 1 else "")
            value = f"{row[names.mean]:.{measure.digits}f}{measure.symbol}"
            known = "the test images" if row["role"] == "teacher" else f"the test images, {seeds}"
            found.append(({"network": called, "reaches": value, "known": known}, int(row["macs"])))
    return found


def _rated(root: Path, search: str, macs: int) -> list[tuple[dict[str, Any], int]]:
    """Return the best-rated archs of half and of twice the MACs, with their sum beside that of this size."""
    front = frames.front(root, search)
    if not len(front):
        return []

    def best(most: float) -> Any:
        within = front[front["macs"] <= most]
        return within.iloc[-1] if len(within) else None

    here = best(macs)
    found = []
    for factor in FACTORS:
        row = best(factor * macs)
        if row is None or here is None or row["macs"] == here["macs"]:
            continue
        value = f"sum of ratings {row['score']:.3g} (at this size {here['score']:.3g}; lower is better)"
        called = f"best-rated arch up to {factor:g} times"
        found.append(({"network": called, "reaches": value, "known": "ratings alone"}, int(row["macs"])))
    return found


def _which(root: Path, search: str, table: pd.DataFrame, role: str) -> list[str]:
    measure = measure_of(root)
    names = Columns(measure)
    row: Any = table.loc[role]
    best = frames.best(root, search)
    label = f": {best['label']}" if role == "found" and best.get("label") else ""
    spread = "" if row["seeds"] < 2 or pd.isna(row[names.sd]) else f" ± {row[names.sd]:.{measure.digits}f}"
    reached = f"{row[names.mean]:.{measure.digits}f}{spread}{measure.symbol}"
    words = [f"The {role.replace('_', ' ')} one ({row['arch']}){label}."]
    teacher: Any = table.loc["teacher"] if "teacher" in table.index else None
    share = ""
    if teacher is not None and pd.notna(teacher["macs"]):
        share = f" ({100 * row['macs'] / teacher['macs']:.3g} % of the teacher's)"
    words.append(f"{row['macs']:,} MACs{share}, {row['params']:,} parameters; budget: {budget_words(best)}.")
    beside = ""
    if teacher is not None and pd.notna(teacher[names.mean]):
        beside = f"; the teacher {teacher[names.mean]:.{measure.digits}f}{measure.symbol}"
    seeds = f"{row['seeds']} seed" + ("s" if row["seeds"] > 1 else "")
    words.append(f"Test {measure.words} {reached} ({seeds}){beside}.")
    if isinstance(row["folder"], str):
        words.append(f"It lies in {row['folder']}.")
    return words


def _why(root: Path, search: str, steps: pd.DataFrame) -> list[str]:
    counts = steps.set_index("step")["archs"]
    told = {
        "space": "{:,} archs",
        "rated": "{:,} rated choices",
        "scored": "{:,} scored as a whole",
        "tuned": "{:,} tuned",
        "short trainings": "{:,} trained briefly",
        "retrained": "{:,} retrained with their rivals",
    }
    path = [form.format(int(counts[name])) for name, form in told.items() if name in counts.index]
    words = [" → ".join(path) + "."] if len(path) > 1 else []
    decided = frames.table(root / search / FILE)
    if {"role", "handed_over", "minus_found", "standard_error"} <= set(decided.columns):
        words.append(verdict(decided, measure_of(root)))
    return words


def _trust(root: Path, search: str, table: pd.DataFrame) -> list[str]:
    measure = measure_of(root)
    names = Columns(measure)
    others = table[table[names.low].notna()]
    same = [role.replace("_", " ") for role in indistinguishable(table.reset_index(drop=True))]
    words = []
    if len(others) and same:
        words.append(
            f"{len(same)} of {len(others)} others cannot be told apart from it on the test images: {', '.join(same)}."
        )
    elif len(others):
        words.append(f"Each of the {len(others)} others can be told apart from it on the test images.")
    else:
        words.append("Students were not compared image by image.")
    decided = frames.table(root / search / FILE)
    images = pd.to_numeric(decided["images"]).max() if "images" in decided else float("nan")
    if pd.notna(images):
        few = few_images(int(images), measure)
        words.append(f"Caveat: {few}." if few else f"It was chosen on {int(images):,} images that no test reads.")
    most = int(table.loc[table["role"] != "teacher", "seeds"].max())
    if most < 2:
        words.append("Caveat: with one retraining seed, the spread over seeds is unknown.")
    if gone := collapses(runs_of(root, search)):
        words.append(f"Caveat: {sum(gone.values())} trainings collapsed.")
    return words


def _sizes(table: pd.DataFrame) -> str:
    if not len(table):
        return "<p>No network of another size was trained or rated in this run.</p>"
    return html.table(table, SIZE_HEADS, {"times": lambda value: f"{float(value):.3g}"})


def _paragraphs(words: list[str]) -> str:
    return "".join(html.paragraphs(words))
