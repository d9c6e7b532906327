"""The first sentences of the report: what was found, how it compares, and what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from nas_kd.analyse import frames
from nas_kd.analyse.choice import FILE, few_images, indistinguishable, verdict
from nas_kd.analyse.measure import collapses, measure_of, scored_subnets
from nas_kd.analyse.table import Columns, budget_words, final_table, runs_of, students
from nas_kd.config.measures import ACCURACY, MEASURES, TUNED

GOALS = {"kl": "KL to the teacher", "macs": "MACs", "params": "parameters", "latency_ms": "latency"}

ENGINES = {"random": "draws by lot"}  # "random" is for the students of the found one's size


def headline(root: Path, search: str) -> list[str]:
    """Describe what a search found and how it compares after retraining.

    Args:
        root: run folder.
        search: the search's folder in the run.

    Returns:
        Sentences; limitations start with ``Caveat:``.
    """
    best = frames.best(root, search)
    if not best:
        return []
    scored = len(scored_subnets(root, search))
    sentences = [
        f"Found {best['key']}: {best.get('label', '')}; {best['macs']:,} MACs, {best['params']:,} "
        f"parameters. Budget: {budget_words(best)}. Whole subnets scored: {scored:,}."
    ]
    engine = frames.engine(root, search)
    if engine != "exact":
        words = GOALS | {name: each.words for name, each in MEASURES.items() if each != ACCURACY}
        goals = [_goal(goal, words) for goal in best.get("objectives") or ["accuracy", "macs"]]
        sentences.append(
            f"Searched with {ENGINES.get(engine, engine)} among subnets with shared weights for {' and '.join(goals)}."
        )
    if not frames.has_teacher(root):
        sentences.append("There is no teacher.")
    table = final_table(root, search).set_index("role")
    found: Any = table.loc["found"] if "found" in table.index else None
    if found is None or not found["seeds"]:
        return sentences
    measure = measure_of(root)
    names = Columns(measure)
    digits = measure.digits
    spread = "" if found["seeds"] < 2 else f" (sd {found[names.sd]:.{digits}f})"
    seeds = f"{found['seeds']} seed" + ("s" if found["seeds"] > 1 else "")
    mean = found[names.mean]
    named = "" if measure == ACCURACY else f" {measure.words}"
    value = f"{mean:.{digits}f}{measure.symbol}{named}{spread}"
    sentences.append(f"Retrained with {seeds}, it reaches {value} on the test images.")
    if "teacher" in table.index:
        teacher: Any = table.loc["teacher"]
        size = ""
        if pd.notna(teacher["macs"]) and pd.notna(teacher["params"]):
            size = (
                f", with {_share(found['macs'], teacher['macs'])} of its MACs and "
                f"{_share(found['params'], teacher['params'])} of its parameters"
            )
        whole = teacher[names.mean]
        gap = f"{mean - whole:+.{digits}f}{measure.points}"
        sentences.append(f"The teacher reaches {whole:.{digits}f}{measure.symbol}: {gap} for the student{size}.")
    gone = collapses(runs_of(root, search))
    if gone:
        each = ", ".join(f"{count} of {role.replace('_', ' ')}" for role, count in gone.items())
        sentences.append(
            f"Caveat: trainings collapsed ({each}): on the test images they answer one class for all, or do no better "
            "than chance."
        )
    return sentences + _handed_over(root, search, table) + _compare(root, search, table)


def _goal(name: str, words: dict[str, str]) -> str:
    """Word an objective."""
    own = name.removeprefix(TUNED)
    return words.get(own, own) + (" after an epoch of distillation" if name.startswith(TUNED) else "")


def _handed_over(root: Path, search: str, table: pd.DataFrame) -> list[str]:
    """Describe which student is handed over and why, and which others cannot be told apart from it."""
    decided = frames.table(root / search / FILE)
    if not len(decided):
        return []
    same = [role.replace("_", " ") for role in indistinguishable(table.reset_index())]
    measure = measure_of(root)
    known = int(table[Columns(measure).low].notna().sum())
    sentences = [verdict(decided, measure)]
    images = pd.to_numeric(decided["images"]).max() if "images" in decided else float("nan")
    if pd.notna(images) and (few := few_images(int(images), measure)):
        sentences.append(f"Caveat: {few}.")
    if same:
        sentences.append(
            f"Caveat: {len(same)} of {known} others cannot be told apart from it on the test images "
            f"(95 % interval of the paired difference over images and seeds): {', '.join(same)}."
        )
    return sentences


def _share(part: float, whole: float) -> str:
    percent = 100 * part / whole
    return f"{percent:.0f} %" if percent >= 10 else f"{percent:.2g} %"


RIVALS = {
    "new_weights": "the same architecture from new weights",
    "even_width": "the teacher cut evenly in width",
    "even_depth": "the teacher cut evenly in depth",
    "even_both": "the teacher cut evenly in depth and width",
    "taylor": "the teacher cut by torch-pruning",
    "small_images": "the teacher at a smaller input",
}


def _compare(root: Path, search: str, table: pd.DataFrame) -> list[str]:
    """Compare the found student with random ones and the largest, seed by seed."""
    measured = runs_of(root, search)
    measured = measured[pd.to_numeric(measured["test_accuracy"]).notna()]
    measure = measure_of(root)
    measured = measured.assign(percent=measure.factor * measured["test_accuracy"].astype(float))
    found = measured[measured["role"] == "found"].set_index("seed")["percent"]
    keys = students(root, search).set_index("role")["key"]
    sentences = []
    drawn = measured["role"].str.startswith("random")
    macs = measured.loc[measured["role"] == "found", "macs"].min()
    apart = 100 * float((measured.loc[drawn, "macs"] / macs - 1).abs().max())
    groups = {
        f"the mean of the random students (MACs within {apart:.2g} % of its own)": drawn,
        "the student with the largest MACs": measured["role"] == "largest_macs",
        "the student with the most parameters": measured["role"] == "largest_params",
    }
    groups |= {name: measured["role"] == role for role, name in RIVALS.items()}
    alone = len(found) < 2
    for name, mask in groups.items():
        rows = measured[mask]
        if not len(rows):
            continue
        if set(rows["key"]) == {keys["found"]}:
            sentences.append(f"Caveat: the found student is itself {name} within the budget.")
            continue
        gaps = (found - rows.groupby("seed")["percent"].mean()).dropna()
        if not len(gaps):
            continue
        each = ", ".join(f"{measure.sign * gap:+.{measure.digits}f}" for gap in gaps)
        mean = f"{measure.sign * gaps.mean():+.{measure.digits}f}{measure.points}"
        sentences.append(f"Against {name}: {mean} ({'one seed' if len(gaps) < 2 else f'by seed: {each}'}).")
        if gaps.mean() <= 1e-9:
            sentences.append(f"Caveat: the found student does not beat {name}.")
        elif gaps.min() <= 1e-9:
            sentences.append(f"Caveat: the found student is not ahead of {name} with every seed.")
    if alone:
        sentences.append("Caveat: with one retraining seed, the spread over seeds is unknown.")
    means = measure.sign * table[Columns(measure).mean].drop(labels=["teacher"], errors="ignore").dropna()
    if len(means) > 1 and means.idxmax() != "found":
        sentences.append(f"Caveat: the best mean accuracy of all retrained students is that of {means.idxmax()}.")
    return sentences


def missing(root: Path) -> list[str]:
    """List what an unfinished run is missing."""
    gaps = []
    taught = frames.has_teacher(root)
    rated = taught and any(frames.guided(root, search) for search in frames.searches(root) or ["search"])
    for path, what, expected in (
        ("supernet/weights.safetensors", "the trained supernet", not frames.is_derived(root)),
        ("blockwise/stage_1.csv", "the rating", rated),
        ("search/best.json", "the search's result", True),
        ("retrain/results.csv", "all retrained students", True),
        ("retrain/teacher.json", "the teacher's accuracy on the test images", taught),
    ):
        if expected and not (root / path).exists():
            gaps.append(f"{what} ({path})")
    for search in frames.searches(root) or ["search"]:
        rows = final_table(root, search)
        rows = rows[rows["role"] != "teacher"]
        if len(rows):
            most = int(frames.section(root, "retrain").get("seeds") or rows["seeds"].max())
            short = rows[rows["seeds"] < most]
            if len(short):
                each = ", ".join(f"{row['role']} {row['seeds']} of {most}" for row in short.to_dict("records"))
                gaps.append(f"retraining seeds in {search}: {each}")
        elif (root / search / "best.json").exists():
            gaps.append(f"the list of students to compare ({search}/students.csv)")
    return gaps
