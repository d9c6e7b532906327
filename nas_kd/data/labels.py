"""What labels are: classes, columns of 0 and 1, or numbers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nas_kd.data.config import Kind
from nas_kd.errors import SettingError

Columns = dict[str, NDArray[Any]]
DROP = "leave images without a label out"


class Labels(NamedTuple):
    """The labels of a data set.

    Args:
        y: (N,) int64 class numbers, or (N, L) float32: 0 and 1 (multi-label) or numbers (regression).
        names: of the classes, or of the columns of y.
        kind: which of the three.
    """

    y: NDArray[Any]
    names: tuple[str, ...]
    kind: Kind


def labels_of(field: str, columns: Columns, kind: Kind | None, *, numbered: bool = False) -> Labels:
    """Tell from values what labels are.

    Texts are classes, in sorted order; whole numbers and truth values are classes in one column and multi-label in
    several; other numbers are regression.

    Args:
        field: the setting that named them, for messages.
        columns: name to (N,) values.
        kind: what they are; None looks at the values.
        numbered: whole numbers are the numbers of the classes, 0 .. classes - 1, not their names.

    Raises:
        SettingError: they are none of these, or could be two of them.
    """
    values = {name: _plain(field, name, column) for name, column in columns.items()}
    texts = [name for name, column in values.items() if column.dtype.kind == "U"]
    if len(values) > 1 and texts:
        raise SettingError(field, texts[0], "numbers in every one of several label columns", "name one label column")
    found = _one(field, *values.popitem(), kind, numbered) if len(values) == 1 else _several(field, values, kind)
    if found.kind == "classes" and len(found.names) < 2:
        raise SettingError(
            field, f"one class, {found.names[0]!r}", "at least two classes", "add images of another class"
        )
    return found


def _plain(field: str, name: str, column: NDArray[Any]) -> NDArray[Any]:
    """Turn a column into text, truth values, int64 or float64 without gaps."""
    if column.dtype.kind == "O":
        given = column.tolist()
        gaps = [row for row, value in enumerate(given) if value is None or value != value or value == ""]
        if gaps:
            raise SettingError(
                field, f"no label in {len(gaps)} rows, the first {gaps[0]}", "a label for every image", DROP
            )
        if any(isinstance(value, str | bytes) for value in given):
            column = np.array([value.decode() if isinstance(value, bytes) else str(value) for value in given])
        else:
            column = np.array(given)
    if column.dtype.kind == "f" and not np.isfinite(column).all():
        row = int(np.flatnonzero(~np.isfinite(column))[0])
        value = f"{name}: {column[row]} in row {row}"
        raise SettingError(field, value, "a label for every image, a finite number", DROP)
    if column.dtype.kind not in "Ubiuf" or column.ndim != 1:
        raise SettingError(field, f"{name}: {column.dtype}", "labels that are texts or numbers", "convert them")
    return column.astype(np.float64 if column.dtype.kind == "f" else np.int64) if column.dtype.kind in "iuf" else column


def _one(field: str, name: str, column: NDArray[Any], kind: Kind | None, numbered: bool) -> Labels:
    if column.dtype.kind == "f" and kind is None and _class_numbers(column):
        expected = "whole numbers for classes, or data.kind=regression"
        raise SettingError(field, f"{name}: class numbers as {column.dtype}", expected, "say which by data.kind")
    if kind is None:
        kind = "regression" if column.dtype.kind == "f" else "classes"
    if kind != "classes":
        return _numbers(field, {name: column}, kind)
    if column.dtype.kind == "f":
        if (column != np.rint(column)).any():
            raise SettingError(field, f"{name}: {column.dtype}", "whole numbers or texts for classes", "convert them")
        column = column.astype(np.int64)
    if numbered and column.dtype.kind == "i":
        return Labels(column, _by_number(field, column), "classes")
    found, y = np.unique(column, return_inverse=True)
    return Labels(y.astype(np.int64), tuple(map(str, found.tolist())), "classes")


def _class_numbers(column: NDArray[Any]) -> bool:
    """Tell whether numbers look as class numbers do: 0, 1, 2 ..., each more than once."""
    found, counts = np.unique(column, return_counts=True)
    return np.array_equal(found, np.arange(len(found))) and bool(counts.min() > 1)


def _by_number(field: str, y: NDArray[np.int64]) -> tuple[str, ...]:
    """Name classes by their numbers; the numbers are looked at before anything of their size is made."""
    found = np.unique(y)
    if found[0] == -1 and len(found) > 1 and found[1] >= 0:
        value = f"label -1 of {int((y == -1).sum())} images"
        hint = "leave images without a label out: x[y >= 0], y[y >= 0]"
        raise SettingError(field, value, "labels 0 .. classes - 1, one for every image", hint)
    if found[0] < 0:
        raise SettingError(field, f"label {found[0]}", "labels 0 .. classes - 1", "renumber the labels")
    if found[-1] != len(found) - 1:
        missing = int(np.flatnonzero(found != np.arange(len(found)))[0])
        value = f"no image of class {missing}, and label {found[-1]}"
        hint = "subtract 1 from all" if missing == 0 and found[-1] == len(found) else "renumber the labels"
        raise SettingError(field, value, "labels 0 .. classes - 1, an image of every class", hint)
    return tuple(map(str, found.tolist()))


def _several(field: str, columns: Columns, kind: Kind | None) -> Labels:
    matrix = np.stack([*columns.values()], axis=1)
    binary = bool(((matrix == 0) | (matrix == 1)).all())
    one_hot = binary and bool((matrix.sum(1) == 1).all())
    if kind is None and one_hot:
        value = f"{matrix.shape[1]} columns of 0 and 1, one 1 in every row"
        raise SettingError(field, value, "data.kind, classes or multilabel, as these may be either", "set data.kind")
    if kind is None and not binary and not any(column.dtype.kind == "f" for column in columns.values()):
        value = f"{matrix.shape[1]} columns of whole numbers {matrix.min()} .. {matrix.max()}"
        expected = "columns of 0 and 1 (multi-label) or of decimal numbers (regression)"
        raise SettingError(field, value, expected, "set data.kind=regression")
    if kind == "classes":
        if not one_hot:
            value = f"{matrix.shape[1]} label columns"
            raise SettingError(
                field, value, "for data.kind=classes one column, or one 1 in every row", "check data.kind"
            )
        return Labels(matrix.argmax(1).astype(np.int64), tuple(columns), "classes")
    return _numbers(field, columns, kind or ("multilabel" if binary else "regression"))


def _numbers(field: str, columns: Columns, kind: Kind) -> Labels:
    for name, column in columns.items():
        if column.dtype.kind == "U":
            raise SettingError(field, f"{name}: texts", f"numbers for data.kind={kind}", "convert them")
        if kind == "multilabel" and not ((column == 0) | (column == 1)).all():
            value = f"{name}: {column.min()} .. {column.max()}"
            raise SettingError(field, value, "0 and 1 for data.kind=multilabel", "convert them, or set data.kind")
    y = np.stack([*columns.values()], axis=1).astype(np.float32)
    return Labels(y, tuple(columns), kind)


def columns_of(field: str, y: Any) -> Columns:
    """Return what a caller gave as y, (N,) or (N, L) of any kind, by columns: a table's own or their numbers.

    Raises:
        SettingError: it is neither.
    """
    if hasattr(y, "columns"):
        return {str(name): y[name].to_numpy() for name in y.columns}
    try:
        array = np.asarray(y if hasattr(y, "__array__") else list(y))
    except (TypeError, ValueError) as error:  # no list, or one of lists of several lengths
        expected = f"labels (N,) or (N, L) ({error})"
        raise SettingError(field, type(y).__name__, expected, "pass a list, an array or a tensor") from error
    if array.ndim not in (1, 2):
        raise SettingError(field, f"y of shape {array.shape}", "labels (N,) or (N, L)", "reshape them")
    return {"0": array} if array.ndim == 1 else {str(at): array[:, at] for at in range(array.shape[1])}
