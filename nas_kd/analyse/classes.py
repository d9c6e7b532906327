"""How one student does class by class, or label by label: a table of each, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path

import pandas as pd

from nas_kd.analyse import frames, html

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


def classes_part(root: Path, results: pd.DataFrame, keep: Callable[[str, pd.DataFrame], None]) -> list[str]:
    """Show the student that is handed over class by class.

    Args:
        root: run folder.
        results: from `nas_kd.analyse.table.final_table`.
        keep: called with the name and the whole of each table, of which the page may show a part.

    Returns:
        Parts of an HTML page; none where a run does not have them.
    """
    given = results.loc[results["handed_over"], "folder"].dropna()
    if not len(given):
        return []
    folder = str(given.iloc[0])
    each = by_class(root, folder)
    if not len(each):
        return []
    keep("classes", each)
    numbers: dict[str, Callable[[object], str]] = {str(name): html.fixed(3) for name in each if name != "name"}
    numbers["images"] = html.whole
    heads = {str(name): str(name).replace("_", " ") for name in each}
    lowest = each.sort_values(str(each.columns[1]), kind="stable").head(MOST) if len(each) > MOST else each
    body = ["<h2>Class by class</h2>" if "recall" in each else "<h2>Label by label</h2>"]
    body.append(f'<p class="soft">Of {escape(folder)}, on the test images{_of_more(each, "lowest")}.</p>')
    body.append(html.table(lowest, heads, numbers))
    matrix = confusion(root, folder)
    if not len(matrix):
        return body
    keep("confusion", matrix.reset_index())
    body.append(f"<h3>Confusion matrix</h3>{_matrix_note(matrix)}")
    if len(matrix) <= MOST:
        shown = matrix.reset_index()
        body.append(
            html.table(shown, {str(name): str(name) for name in shown}, {str(name): html.whole for name in matrix})
        )
    else:
        pairs = confused(matrix).head(MOST)
        body.append(html.table(pairs, {str(name): str(name) for name in pairs}, {"images": html.whole}))
    return body


def _of_more(rows: pd.DataFrame, which: str) -> str:
    return f"; the {MOST} {which} of {len(rows)}, all are in classes.csv" if len(rows) > MOST else ""


def _matrix_note(matrix: pd.DataFrame) -> str:
    few = "Rows are classes, columns answers; numbers of test images."
    many = f"The {MOST} pairs that are confused most often; all are in confusion.csv."
    return f'<p class="soft">{few if len(matrix) <= MOST else many}</p>'
