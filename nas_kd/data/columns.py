"""Which columns of a table are images or texts, labels, splits and groups, and the sources they make."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_kd.data.config import DataConfig
from nas_kd.data.formats import is_image_name
from nas_kd.data.labels import Labels, labels_of
from nas_kd.data.layout import SPLITS
from nas_kd.data.source import ALONE, FileSource, Source, TableSource, TextSource
from nas_kd.data.table import IMAGE, PAIR, TEXT, Table, first_known
from nas_kd.errors import SettingError

# names of columns in lower case
LABEL = ("label", "labels", "class", "class_name", "target", "category", "y", "cls")
GROUP = ("group", "groups")


def sources(what: str, table: Table, config: DataConfig) -> tuple[dict[str, Source], str]:
    """Make a source of each split of a table, and say what its columns were taken for.

    Args:
        what: the setting that named the table.

    Returns:
        train, and val and test where a column says so; and a sentence.

    Raises:
        SettingError: columns are missing, or files that the table names.
    """
    texts = _texts(what, table, config) if config.tokenizer is not None else None
    image = _image(table, config) if texts is None else ""
    split = _named("data.split_column", table, config.split_column) or first_known(table.columns, ("split",))
    group = _named("data.group", table, config.group) or first_known(table.columns, GROUP)
    used = (image,) if texts is None else texts.columns
    labels = _labels(table, config, {*used, split, group})
    found = _read_labels(what, table, labels, config)
    groups = None if group is None else _groups(table.values(group))
    rows = np.arange(len(found.y))
    parts = {"train": rows} if split is None else _splits(what, table, split)
    paths = None if texts is not None or image in table.images else _paths(what, table, image, config)
    made: dict[str, Source] = {}
    for name, chosen in parts.items():
        rest = (
            what,
            table.origin,
            texts.names(chosen)
            if texts is not None
            else _names(table, found, chosen)
            if paths is None
            else [paths[row] for row in chosen.tolist()],
            found.y[chosen],
            found.names,
            found.kind,
            None if groups is None else groups[chosen],
        )
        if texts is not None:
            made[name] = TextSource(*texts.of(chosen), *rest)
        elif paths is None:
            assert table.cells is not None  # columns that hold images have cells
            made[name] = TableSource(table.cells(image), chosen, table.folder, *rest)
        else:
            files = [os.path.join(table.folder, paths[row]) for row in chosen.tolist()]
            made[name] = FileSource(files, None, *rest)
    told: dict[str, list[Any]] = {"image": [image]} if texts is None else {"text": list(texts.columns)}
    return made, _told(table, told | {"label": labels, "split": [split], "group": [group]})


@dataclass(frozen=True)
class _Texts:
    """The texts of a table.

    Args:
        columns: one, or two of pairs.
        values: (N,) of each.
    """

    columns: tuple[str, ...]
    values: tuple[list[str], ...]

    def of(self, rows: NDArray[np.int64]) -> tuple[list[str], list[str] | None]:
        """Return the texts of rows, and the second ones of pairs."""
        found = [[column[row] for row in rows.tolist()] for column in self.values]
        return found[0], found[1] if len(found) > 1 else None

    def names(self, rows: NDArray[np.int64]) -> list[str]:
        """Name texts by a hash of their own, equal for equal texts wherever they are from."""
        return [
            hashlib.sha256(
                "\0".join(column[row] for column in self.values).encode("utf-8", "surrogatepass")
            ).hexdigest()[:16]
            for row in rows.tolist()
        ]


def _texts(what: str, table: Table, config: DataConfig) -> _Texts:
    labels = config.label_columns
    free = tuple(name for name in table.columns if name not in (*labels, config.split_column, config.group))
    first = _named("data.text", table, config.text) or first_known(free, TEXT)
    if first is None:
        expected = f"a column of texts, such as text; {table.origin} has {_some(table.columns)}"
        raise SettingError("data.text", None, expected, "name it: data.text=COLUMN")
    second = _named("data.text_pair", table, config.text_pair) or first_known(free, PAIR)
    columns = (first,) if second in (None, first) else (first, str(second))
    both = next((column for column in columns if column in labels), None)
    if both is not None:  # a network would read its answers
        raise SettingError("data.label", both, "a column that is no text of the network", "name another column")
    values = tuple(table.values(column).tolist() for column in columns)
    for setting, column, texts in zip(("data.text", "data.text_pair"), columns, values, strict=False):
        empty = [row for row, text in enumerate(texts) if not isinstance(text, str) or not text.strip()]
        if empty:
            value = f"{table.origin}: no text in {len(empty)} rows of column {column!r}, the first {empty[0]}"
            raise SettingError(what, value, "a text in every row", f"leave these rows out, or name another: {setting}")
    return _Texts(columns, values)


def _told(table: Table, taken: dict[str, list[Any]]) -> str:
    """Say which columns were taken for what, and which were not."""
    words = [f"{purpose} {_some(tuple(map(str, names)))}" for purpose, names in taken.items() if names != [None]]
    left = tuple(column for column in table.columns if not any(column in names for names in taken.values()))
    return f"columns: {'; '.join(words)}" + (f"; not used: {_some(left)}" if left else "")


def _named(setting: str, table: Table, name: str | None) -> str | None:
    """Return a column that a setting names, if it does."""
    if name is None or name in table.columns:
        return name
    raise SettingError(setting, name, f"a column of {table.origin}: {', '.join(table.columns[:20])}", "check the name")


def _image(table: Table, config: DataConfig) -> str:
    given = _named("data.image", table, config.image)
    if given is not None:
        return given
    found = first_known(table.images, IMAGE) or (table.images[0] if len(table.images) == 1 else None)
    if found is None and not table.images:
        found = first_known(table.columns, IMAGE)
        named = [column for column in table.columns if is_image_name(str(table.values(column)[0]))]
        found = found or (named[0] if len(named) == 1 else None)
    if found is None:
        expected = f"a column of images or of their paths, such as image; {table.origin} has {_some(table.columns)}"
        raise SettingError("data.image", None, expected, "name it: data.image=COLUMN")
    return found


def _labels(table: Table, config: DataConfig, taken: set[str | None]) -> list[str]:
    given = config.label_columns
    if given:
        for name in given:
            _named("data.label", table, name)
        return list(dict.fromkeys(given))
    left = [column for column in table.columns if column not in taken and not column.startswith("Unnamed")]
    typed = [column for column in left if column in table.classes]
    found = first_known(left, LABEL) or (typed[0] if len(typed) == 1 else left[0] if len(left) == 1 else None)
    if found is None:
        expected = f"a column of labels, such as label; {table.origin} has {_some(table.columns)}"
        raise SettingError("data.label", None, expected, "name it, or several: data.label=COLUMN")
    return [found]


def _some(columns: tuple[str, ...]) -> str:
    return ", ".join(columns[:20]) + (" ..." if len(columns) > 20 else "")


def _read_labels(what: str, table: Table, names: list[str], config: DataConfig) -> Labels:
    columns = {name: table.values(name) for name in names}
    classes = table.classes.get(names[0]) if len(names) == 1 else None
    if classes is None or config.kind not in (None, "classes"):
        return labels_of("data.label", columns, config.kind)
    y = columns[names[0]]
    if y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= len(classes):
        expected = f"numbers 0 .. {len(classes) - 1} of the classes of {names[0]}"
        raise SettingError(
            what, f"{table.origin}: {y.min() if y.dtype.kind in 'iu' else y.dtype}", expected, "check it"
        )
    return Labels(y.astype(np.int64), classes, "classes")


def _groups(values: NDArray[Any]) -> NDArray[Any]:
    """Return the name of each image's group; an image without one is its own."""
    return np.array([f"{ALONE}{row}" if value is None else f"{value}" for row, value in enumerate(values.tolist())])


def _splits(what: str, table: Table, column: str) -> dict[str, NDArray[np.int64]]:
    found = table.values(column)
    names = [str(name).strip().lower() for name in found.tolist()]
    unknown = sorted({name for name in names if name not in SPLITS})
    if unknown:
        expected = f"train, val or test in column {column!r}; it has {', '.join(map(repr, unknown[:5]))}"
        raise SettingError(what, table.origin, expected, "rename them, or name another column: data.split_column")
    which = np.array([SPLITS[name] for name in names])
    parts = {name: np.flatnonzero(which == name) for name in ("train", "val", "test")}
    if not len(parts["train"]):
        raise SettingError(what, table.origin, f"images of split train in column {column!r}", "add some")
    return {name: rows for name, rows in parts.items() if len(rows)}


def _paths(what: str, table: Table, column: str, config: DataConfig) -> list[str]:
    """Return the paths of the images, checked to be there, and none twice."""
    given = table.values(column).tolist()
    wrong = next((row for row, path in enumerate(given) if not isinstance(path, str) or not path), None)
    if wrong is not None:
        expected = f"paths in column {column!r}; row {wrong} has {given[wrong]!r}"
        raise SettingError(what, table.origin, expected, "name another column: data.image")
    paths = [PurePath(path).as_posix() for path in given]
    twice, count = Counter(paths).most_common(1)[0]
    if count > 1:
        expected = f"a row an image; {twice} is in {count} rows"
        raise SettingError(what, table.origin, expected, "keep one row of each, with several label columns if needed")
    if config.unreadable == "stop":
        lost = [path for path in paths if not os.path.isfile(os.path.join(table.folder, path))]
        if lost:
            expected = f"files of all images; {len(lost)} of {len(paths)} are missing, such as {lost[0]}"
            hint = f"paths begin at {table.folder or '.'}; write them with their suffix, or set data.unreadable=skip"
            raise SettingError(what, table.origin, expected, hint)
    return paths


def _names(table: Table, labels: Labels, rows: NDArray[np.int64]) -> list[str]:
    """Name images without files as their table does, or by class and running number."""
    if table.names is not None:
        return [table.names[row] for row in rows.tolist()]
    if labels.kind != "classes":
        return [f"{row:06d}" for row in rows.tolist()]
    return [f"{labels.names[labels.y[row]]}/{row:06d}" for row in rows.tolist()]
