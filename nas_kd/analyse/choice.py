"""The student to hand over, and the students that cannot be told apart from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from nas_kd.analyse import frames
from nas_kd.analyse.paired import paired_difference
from nas_kd.config.measures import ACCURACY, Measure

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
        One row for every other role: role, key, seeds and images (their numbers), difference (of its scores, of which
        higher is better, minus those of ``against``), standard_error, low and high (95 % interval); see
        `paired_difference`. NaN if the run lacks the scores of single images.
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


def verdict(table: pd.DataFrame, measure: Measure = ACCURACY) -> str:
    """Describe a `decision` in a sentence.

    Args:
        measure: the run's.
    """
    chosen = table[table["handed_over"]].iloc[0]
    others = int((table["role"] != "found").sum())
    rule = "by more than one standard error of the paired difference over images and seeds"
    if chosen["role"] == "found":
        unknown = int(table.loc[table["role"] != "found", "minus_found"].isna().sum())
        note = f" ({unknown} cannot be compared image by image)" if unknown else ""
        return f"Handed over: found. On the select split, none of the {others} others is better {rule}{note}."
    gap, error = measure.sign * measure.factor * chosen["minus_found"], measure.factor * chosen["standard_error"]
    name = str(chosen["role"]).replace("_", " ")
    digits = measure.digits
    return (
        f"Handed over: {name}, not found. On the select split, it is better {rule}: "
        f"{gap:+.{digits}f}{measure.points}, standard error {error:.{digits}f}."
    )


FEW = 100  # images on which an accuracy of 90 % has a standard error of 3 points


def few_images(images: int, measure: Measure = ACCURACY) -> str | None:
    """Say what so few images cannot tell apart; None where they are enough.

    Args:
        images: of the select split, by which students are compared.
        measure: the run's; a standard error is known beforehand for accuracies alone.
    """
    if images >= FEW:
        return None
    error = ""
    if measure.name in ("accuracy", "balanced_accuracy"):
        points = 100 * math.sqrt(0.9 * 0.1 / max(1, images))
        error = f" ({measure.words} of 90 % has a standard error of {points:.1f} points)"
    return (
        f"select has {images} images, which hardly tell students apart{error}: who is handed over is partly chance; "
        f"set data.select={FEW} or more, or give more images"
    )


def indistinguishable(results: pd.DataFrame) -> list[str]:
    """Return the roles of a final table whose interval to the student handed over includes 0."""
    low, high = (next(name for name in results if str(name).startswith(f"difference_{end}")) for end in ("low", "high"))
    held = (results[low] <= 0.0) & (results[high] >= 0.0)
    return results.loc[held, "role"].tolist()


def handed_over(run: Path, search: str) -> str:
    """Return the role of the student that is handed over; before the decision, found."""
    table = frames.table(run / search / FILE)
    if not {"role", "handed_over"} <= set(table.columns):
        return "found"
    chosen = table.loc[table["handed_over"].astype(bool), "role"]
    return str(chosen.iloc[0]) if len(chosen) else "found"
