"""The student to hand over, and the students that cannot be told apart from it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from nas_kd.analyse import frames
from nas_kd.analyse.paired import paired_difference

FILE = "handed_over.csv"  # in the search's folder


def scores_of(root: Path, folders: Sequence[str], split: str) -> np.ndarray | None:
    """Return the score of every image in each of some trainings, (S, N); None unless known for all.

    Args:
        root: run folder.
        folders: of the students, one per seed.
        split: ``select`` or ``test``.
    """
    kept = [frames.table((root / folder).parent / f"{split}.csv") for folder in folders]
    if not kept or any("score" not in rows or len(rows) != len(kept[0]) for rows in kept):
        return None
    return np.stack([rows["score"].to_numpy(float) for rows in kept])


def differences(root: Path, measured: pd.DataFrame, against: str, split: str) -> pd.DataFrame:
    """Compare every student with one of them, on the same images and with the same seeds.

    Args:
        root: run folder.
        measured: one row per role and seed, with the student's folder.
        against: role of the student to compare with.
        split: ``select`` or ``test``.

    Returns:
        One row for every other role: role, key, seeds and images (their numbers), difference (its accuracy minus
        that of ``against``, 0 to 1), standard_error, low and high (95 % interval); see `paired_difference`. NaN if
        the run lacks the scores of single images.
    """
    known = measured[measured["folder"].notna()]
    base = known[known["role"] == against].set_index("seed")["folder"]
    rows = []
    for (role, key), mine in known[known["role"] != against].groupby(["role", "key"], sort=False):
        own = mine.set_index("seed")["folder"]
        seeds = [seed for seed in base.index if seed in own.index]
        one, other = (scores_of(root, folders[seeds].tolist(), split) for folders in (own, base))
        row: dict[str, object] = {"role": role, "key": key, "seeds": len(seeds)}
        if one is not None and other is not None and one.shape == other.shape and one.shape[1]:
            found = paired_difference(one, other)
            low, high = found.interval
            row |= {"images": one.shape[1], "difference": found.mean, "standard_error": found.error}
            row |= {"low": low, "high": high}
        rows.append(row)
    columns = ["role", "key", "seeds", "images", "difference", "standard_error", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def decision(root: Path, measured: pd.DataFrame) -> pd.DataFrame:
    """Decide which student is handed over, on the select split.

    This is the found one, unless others are better by more than one standard error of the paired difference over images
    and seeds; then it is the best of those.

    Args:
        root: run folder.
        measured: one row per role and seed.

    Returns:
        One row per role: role, key, select_accuracy (mean over the seeds), seeds, images, minus_found, standard_error
        and handed_over (True in one row).

    Source: the one-standard-error rule of Breiman, Friedman, Olshen & Stone, CART (1984), section 3.4.3.
    """
    kept = {"difference": "minus_found"}
    gaps = differences(root, measured, "found", "select").rename(columns=kept).drop(columns=["seeds", "low", "high"])
    known = measured.assign(select_accuracy=pd.to_numeric(measured["select_accuracy"]))
    means = known.groupby(["role", "key"], sort=False)["select_accuracy"].agg(["mean", "size"]).reset_index()
    table = means.rename(columns={"mean": "select_accuracy", "size": "seeds"}).merge(
        gaps, on=["role", "key"], how="left"
    )
    table["images"] = pd.to_numeric(table["images"]).astype("Int64")
    better = table[table["minus_found"] > table["standard_error"]]
    role = "found" if better.empty else table.loc[better["minus_found"].idxmax(), "role"]
    return table.assign(handed_over=table["role"] == role)


def verdict(table: pd.DataFrame) -> str:
    """Describe a `decision` in a sentence."""
    chosen = table[table["handed_over"]].iloc[0]
    others = int((table["role"] != "found").sum())
    rule = "by more than one standard error of the paired difference over images and seeds"
    if chosen["role"] == "found":
        unknown = int(table.loc[table["role"] != "found", "minus_found"].isna().sum())
        note = f" ({unknown} cannot be compared image by image)" if unknown else ""
        return f"Handed over: found. On the select split, none of the {others} others is better {rule}{note}."
    gap, error = 100 * chosen["minus_found"], 100 * chosen["standard_error"]
    name = str(chosen["role"]).replace("_", " ")
    return (
        f"Handed over: {name}, not found. On the select split, it is better {rule}: "
        f"{gap:+.2f} points, standard error {error:.2f}."
    )


def indistinguishable(results: pd.DataFrame) -> list[str]:
    """Return the roles of a final table whose interval to the student handed over includes 0."""
    held = (results["difference_low_percent"] <= 0.0) & (results["difference_high_percent"] >= 0.0)
    return results.loc[held, "role"].tolist()


def handed_over(run: Path, search: str) -> str:
    """Return the role of the student that is handed over; before the decision, found."""
    table = frames.table(run / search / FILE)
    if not {"role", "handed_over"} <= set(table.columns):
        return "found"
    chosen = table.loc[table["handed_over"].astype(bool), "role"]
    return str(chosen.iloc[0]) if len(chosen) else "found"
