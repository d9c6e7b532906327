"""Test images that student and teacher answer differently, with the answers of both."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from nas_kd.analyse import frames
from nas_kd.analyse.html import own_words

FILE = "test_disagreements.csv"  # beside the student
MOST = 60  # rows: a file may be somebody else's
TITLES = {
    "teacher": "The teacher is right",
    "student": "The student is right",
    "neither": "Neither is right",
    "unknown": "Without a label",
}


def disagreements_of(root: Path, folder: str) -> pd.DataFrame:
    """Return test images that a student and its teacher answer differently, those of which both are surest first.

    Args:
        root: run folder.
        folder: of the student.

    Returns:
        One row an image: image, label, student, teacher, right (who is: teacher, student, neither, or unknown), shown
        (a PNG in base64, or a text), student_sure, teacher_sure; empty if not known.
    """
    frame = frames.table((root / folder).parent / FILE, words=True).head(MOST)
    if not len(frame):
        return frame
    numbers = {"image": int, "student_sure": float, "teacher_sure": float}
    frame = frame[["image", "label", "student", "teacher", "right", "shown", "student_sure", "teacher_sure"]]
    return frame.astype(numbers)[frame["right"].isin(TITLES)]


def disagreements_part(root: Path, results: pd.DataFrame, keep: Callable[[str, pd.DataFrame], None]) -> list[str]:
    """Show images on which the student that is handed over and its teacher disagree.

    Args:
        root: run folder.
        results: from `nas_kd.analyse.table.final_table`.
        keep: called with the name and the table without its pictures.

    Returns:
        Parts of an HTML page; none where a run does not have them.
    """
    given = results.loc[results["handed_over"], "folder"].dropna()
    frame = disagreements_of(root, str(given.iloc[0])) if len(given) else pd.DataFrame()
    if not len(frame):
        return []
    texts = frames.of_texts(root)
    keep("disagreements", frame if texts else frame.drop(columns="shown"))
    body = ["<h2>Where student and teacher differ</h2>"]
    body.append(f'<p class="soft">{len(frame)} test images, those of which both are surest first.</p>')
    for who, title in TITLES.items():
        rows = frame[frame["right"] == who]
        if len(rows):
            shown = "".join(_figure(row, texts) for row in rows.to_dict("records"))
            body.append(f'<h3>{title}</h3><div class="samples">{shown}</div>')
    return body


def _figure(row: dict[Any, Any], texts: bool) -> str:
    label = f"{own_words(row['label'])}; " if row["label"] else ""
    answers = ", ".join(
        f"{who} {own_words(row[who])} {100 * row[f'{who}_sure']:.0f} %" for who in ("student", "teacher")
    )
    if texts:
        shown = f"<p>{own_words(row['shown'])}</p>"
    else:
        shown = f'<img alt="test image {int(row["image"])}" src="data:image/png;base64,{_checked(row["shown"])}">'
    return f"<figure>{shown}<figcaption>{label}{answers}</figcaption></figure>"


def _checked(picture: str) -> str:
    """Return a PNG in base64; raise ValueError where it is none: a run folder may be somebody else's."""
    try:
        start = base64.b64decode(picture, validate=True)[:8]
    except binascii.Error as error:
        raise ValueError(f"{FILE}: shown is no base64") from error
    if start != b"\x89PNG\r\n\x1a\n":
        raise ValueError(f"{FILE}: shown is no PNG")
    return picture
