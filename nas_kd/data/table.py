"""Tables of images or texts and labels: CSV, JSON lines, parquet, and Hugging Face's data sets."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nas_kd.config.reading import parsed
from nas_kd.errors import SettingError

if TYPE_CHECKING:
    import pandas as pd
    from pyarrow import ChunkedArray

# names of columns of images or of their paths, in lower case
IMAGE = ("image", "img", "path", "file", "filename", "file_name", "filepath", "image_path", "image_id")
TEXT = ("text", "sentence", "sentence1", "review", "content", "comment", "document", "premise", "question", "question1")
PAIR = ("text_pair", "sentence2", "hypothesis", "question2", "answer")
LARGEST_CSV = 2**30  # bytes
LARGEST_PARQUET = 2**32  # bytes unpacked


@dataclass(frozen=True)
class Table:
    """A table of images.

    Args:
        origin: where it is from, for messages.
        columns: their names.
        values: column to its values, (N,).
        images: columns that hold images by their type.
        classes: column to the names of the classes that its numbers stand for.
        cells: column of images to a function from a row to bytes, path or both; None where cells are paths.
        folder: where relative paths begin.
        names: (N,) what rows are called; None where they have no names of their own.
    """

    origin: str
    columns: tuple[str, ...]
    values: Callable[[str], NDArray[Any]]
    images: tuple[str, ...] = ()
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    cells: Callable[[str], Callable[[int], Any]] | None = None
    folder: str = ""
    names: Sequence[str] | None = None


def read_csv(what: str, path: Path, named: Collection[str | None], known: Collection[str] = IMAGE) -> Table:
    """Read a .csv or .tsv, columns divided by commas, tabs or semicolons.

    Args:
        what: the setting, for messages.
        named: columns of images or texts, if they were named; these are texts also where they look like numbers.
        known: what such columns are called else, in lower case.

    Raises:
        SettingError: it is too large or no such table.
    """
    import pandas as pd

    size = path.stat().st_size
    if size > LARGEST_CSV:
        raise SettingError(what, str(path), f"a table of at most {LARGEST_CSV:,} bytes; it has {size:,}", "divide it")
    try:
        with open(path, encoding="utf-8-sig") as file:
            head = file.readline(2**16)
        divider = max("\t;,", key=head.count)
        how: dict[str, Any] = {"sep": divider, "encoding": "utf-8-sig", "dtype_backend": "numpy_nullable"}
        columns = map(str, pd.read_csv(path, nrows=0, **how).columns)
        texts = {column: "string" for column in columns if column in named or column.strip().lower() in known}
        frame = pd.read_csv(path, dtype=texts, low_memory=False, **how)
        if texts:  # "None", "NA" and "null" are texts
            words = pd.read_csv(path, dtype="string", low_memory=False, keep_default_na=False, **how)
            frame[[*texts]] = words[[*texts]]
    except (ValueError, OSError, OverflowError) as error:  # pandas' errors and wrong encodings are ValueErrors
        hint = "save it as UTF-8 text with a line of column names"
        raise SettingError(what, str(path), f"a table of images and labels ({error})", hint) from error
    if not len(frame):
        raise SettingError(what, str(path), "a table with a line of column names and a line an image", "add lines")

    return _of_frame(frame, path)


def read_lines(what: str, path: Path) -> Table:
    """Read a .jsonl: an object of names and values a line.

    Raises:
        SettingError: it is too large or no such table.
    """
    import pandas as pd

    size = path.stat().st_size
    if size > LARGEST_CSV:
        raise SettingError(what, str(path), f"a table of at most {LARGEST_CSV:,} bytes; it has {size:,}", "divide it")
    try:
        rows = [parsed(line) for line in path.read_bytes().splitlines() if line.strip()]
    except ValueError as error:  # wrong encodings are ValueErrors too
        raise SettingError(what, str(path), f"a JSON object a line ({error})", "save it as UTF-8 text") from error
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise SettingError(what, str(path), "a JSON object of names and values a line", "write one a text")
    return _of_frame(pd.DataFrame(rows).convert_dtypes(), path)


def _of_frame(frame: pd.DataFrame, path: Path) -> Table:
    def values(name: str) -> NDArray[Any]:
        column = frame[name]
        if column.isna().any() or column.dtype.kind not in "biuf":
            return column.astype(object).where(column.notna(), None).to_numpy(dtype=object)
        return column.to_numpy(dtype={"b": bool, "f": np.float64}.get(column.dtype.kind, np.int64))

    return Table(str(path), tuple(map(str, frame.columns)), values, folder=str(path.parent))


class Cells:
    """A column of images of a parquet file, in memory as it is stored."""

    def __init__(self, column: ChunkedArray) -> None:
        self._column = column

    def __call__(self, row: int) -> Any:
        return self._column[row].as_py()


def read_parquet(what: str, path: Path) -> Table:
    """Read the columns of a parquet file when they are asked for.

    Raises:
        SettingError: pyarrow is not installed, or the file is too large or damaged.
    """
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        hint = "pip install 'nas_kd[parquet]'"
        raise SettingError(what, str(path), "the package pyarrow for .parquet files", hint) from error
    damaged = (arrow.ArrowException, OSError, ValueError)
    try:
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            groups = [file.metadata.row_group(at) for at in range(file.metadata.num_row_groups)]
            size = sum(group.total_byte_size for group in groups)
            rows = file.metadata.num_rows
    except damaged as error:
        raise SettingError(what, str(path), f"a parquet file ({error})", "write it again") from error
    if size > LARGEST_PARQUET:
        expected = f"a table of at most {LARGEST_PARQUET:,} bytes; it has {size:,}"
        raise SettingError(what, str(path), expected, "give hfds/FOLDER, which stays on the disk, or paths of files")
    if not rows:
        raise SettingError(what, str(path), "a table with a row an image", "add rows")

    def column(name: str) -> ChunkedArray:
        try:
            return parquet.read_table(path, columns=[name])[name]
        except damaged as error:
            raise SettingError(
                what, f"{path}: {name}", f"a column that can be read ({error})", "write it again"
            ) from error

    def values(name: str) -> NDArray[Any]:
        found = column(name)
        return np.array(found.to_pylist(), dtype=object) if found.null_count else found.to_numpy()

    features = _features(schema.metadata)
    binary = [
        each.name
        for each in schema
        if arrow.types.is_binary(each.type)
        or arrow.types.is_large_binary(each.type)
        or (arrow.types.is_struct(each.type) and each.type.get_field_index("bytes") >= 0)
    ]
    classes = {
        name: tuple(map(str, one["names"])) for name, one in features.items() if one.get("_type") == "ClassLabel"
    }
    names = tuple(each.name for each in schema)
    return Table(str(path), names, values, tuple(binary), classes, lambda name: Cells(column(name)), str(path.parent))


def _features(metadata: Mapping[bytes, bytes] | None) -> dict[str, dict[str, Any]]:
    """Return what Hugging Face's library notes about columns in a parquet file."""
    try:
        found = parsed((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {name: one for name, one in found.items() if isinstance(one, dict)}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


class DatasetCells:
    """A column of images of a Hugging Face data set, which stays on the disk."""

    def __init__(self, dataset: Any, name: str) -> None:
        self._dataset = dataset
        self._name = name

    def __call__(self, row: int) -> Any:
        return self._dataset[row][self._name]


def read_hfds(what: str, name: str, split: str, root: str) -> Table:
    """Open a Hugging Face data set, by its name or as a folder.

    Raises:
        SettingError: the package datasets is not installed, or there is no such data set or split.
    """
    try:
        import datasets
    except ImportError as error:
        hint = "pip install 'nas_kd[hf]'"
        raise SettingError(what, f"hfds/{name}", "the package datasets for hfds/", hint) from error
    try:
        dataset: Any = datasets.load_dataset(os.path.expanduser(name), split=split, cache_dir=root)
    except Exception as error:  # of the network, of the hub, of files: each has classes of its own
        hint = "check the name and data.train_split / data.test_split"
        raise SettingError(what, f"hfds/{name}", f"a data set with a split {split!r} ({error})", hint) from error
    features = dataset.features
    images = [key for key, one in features.items() if isinstance(one, datasets.Image)]
    images = images or [key for key, one in features.items() if getattr(one, "dtype", "") == "binary"]
    classes = {key: tuple(one.names) for key, one in features.items() if isinstance(one, datasets.ClassLabel)}

    def cells(key: str) -> DatasetCells:
        return DatasetCells(dataset.select_columns([key]).cast_column(key, datasets.Image(decode=False)), key)

    def values(key: str) -> NDArray[Any]:
        found = dataset.with_format(None).select_columns([key])[:][key]
        return np.array(found, dtype=object) if None in found else np.asarray(found)

    return Table(f"hfds/{name}", tuple(features), values, tuple(images), classes, cells)


def first_known(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the first column of a known name, in any case."""
    lower = {column.strip().lower(): column for column in reversed(columns)}
    return next((lower[name] for name in names if name in lower), None)
