"""How one student does class by class, or label by label: a table of each, and the confusion matrix."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from nas_kd.analyse import frames

MOST = 20  # classes of a matrix that fits a page; of more, the pairs that are confused most often


def by_class(root: Path, folder: str) -> pd.DataFrame:
    """Return the measures of each class or label on the test images.

    Args:
        root: run folder.
        folder: of the student.

    Returns:
        One row a class: name, then recall, precision and images, or those of its kind of labels; empty if not known.
    """
    return frames.table((root / folder).parent / "test_classes.csv")


def confusion(root: Path, folder: str) -> pd.DataFrame:
    """Return the confusion matrix on the test images.

    Args:
        root: run folder.
        folder: of the student.

    Returns:
        Numbers of images: a row a class, a column an answer, both by name; empty if not known, or no classes.
    """
    names = by_class(root, folder)
    images = frames.table((root / folder).parent / "test.csv")
    if not {"label", "answer"} <= set(images.columns) or "name" not in names:
        return pd.DataFrame()
    labels = pd.to_numeric(images["label"])  # frames take a label for text
    known = labels >= 0
    numbers = range(len(names))
    table = pd.crosstab(labels[known], images.loc[known, "answer"]).reindex(
        index=numbers, columns=numbers, fill_value=0
    )
    called = names["name"].astype(str).tolist()
    table.index = pd.Index(called, name="class")
    table.columns = pd.Index(called, name="answer")
    return table


def confused(table: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs of a confusion matrix that are taken for each other, most often first: class, answer, images."""
    pairs = table.stack().rename("images").reset_index()
    pairs = pairs[(pairs["class"] != pairs["answer"]) & (pairs["images"] > 0)]
    return pairs.sort_values("images", ascending=False, kind="stable", ignore_index=True)
