"""Files that stay readable if the process is killed at any moment: atomic writes, JSON, append-only CSV."""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_kd.config.reading import TABLE, parsed, read_bytes, read_text
from nas_kd.errors import SettingError
from nas_kd.runs.links import create, is_part, not_through, part_of, remove
from nas_kd.runs.shape import check_document, check_table

if TYPE_CHECKING:
    import pandas as pd

LONGEST_HEADER = 2**16  # characters of the first line of a table


@contextmanager
def on_disk(path: Path) -> Iterator[None]:
    """Replace the OSError of a full or read-only disk, or of a path that is taken, by an error with a hint.

    Args:
        path: the file or folder being written.

    Raises:
        SettingError: the disk is full or read-only, or a folder stands in the place of a file or a file in that of one.
    """
    full = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the quota is used up",
        errno.EFBIG: "the limit on a file's size is reached",
    }
    denied = "permission is denied"
    read_only = {errno.EROFS: "it is read-only", errno.EACCES: denied, errno.EPERM: denied}
    taken = {
        errno.EISDIR: "a file: a folder has its name",
        errno.ENOTDIR: "a folder: a file has the name of one of its folders",
        errno.EEXIST: "a folder: a file has its name",
    }
    try:
        yield
    except OSError as error:
        if error.errno in full:
            hint = "free space and run the same command again: finished work is kept"
            raise SettingError("run", str(path), f"a folder with space left ({full[error.errno]})", hint) from error
        if error.errno in read_only:
            expected = f"a writable folder ({read_only[error.errno]})"
            raise SettingError("run", str(path), expected, "choose another --run") from error
        if error.errno in taken:
            where = error.filename2 or error.filename or path
            raise SettingError(
                "run", str(where), taken[error.errno], "move it away and run the same command again"
            ) from error
        raise


def atomic_write(path: str | Path, content: bytes | bytearray | memoryview | str, *, keep: Path | None = None) -> None:
    """Write a file atomically: a reader, or the next start after a kill, sees either the old or the new content.

    Args:
        path: the file; its folder exists.
        content: text is written as UTF-8.
        keep: path to move the old file to; a kill may leave only this one.

    Raises:
        SettingError: the disk is full or read-only; the old file is untouched.
    """
    path = Path(path)
    part = part_of(path)
    with on_disk(path):
        try:
            with create(part) as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            if keep is not None and path.exists():
                os.replace(path, keep)
            os.replace(part, path)
        except OSError:
            part.unlink(missing_ok=True)
            raise


def clear_parts(paths: Iterable[Path]) -> None:
    """Delete what killed atomic writes left behind among ``paths``; other hidden files stay."""
    for path in paths:
        if is_part(path.name):
            remove(path)


def atomic_json(path: str | Path, value: Any) -> None:
    """Write `plain(value)` as JSON, atomically.

    Raises:
        SettingError: the disk is full or read-only.
        TypeError: the value holds something that JSON cannot express.
    """
    atomic_write(path, json.dumps(plain(value), indent=1, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """Convert a value for JSON: tuples and sets to lists, numpy and torch scalars to Python's, NaN and inf to None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | frozenset | set):
        return [plain(item) for item in (sorted(value) if isinstance(value, frozenset | set) else value)]
    value = _scalar(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _scalar(value: Any) -> Any:
    """Convert a numpy or torch scalar to Python's."""
    return value.item() if hasattr(value, "item") else value


def read_json(path: Path, keys: Sequence[str] = (), delete: Path | None = None) -> Any:
    """Read a JSON file of a run, which holds a mapping.

    Args:
        keys: keys that it must have; see `nas_kd.runs.shape.KINDS` for what they are.
        delete: what the hint of an error says to delete; None is the file's folder.

    Raises:
        SettingError: the file is missing, damaged, or holds something else.
    """
    hint = f"delete {delete or path.parent} and run the same command again"
    try:
        value = parsed(read_text(path, hint=hint))
    except SettingError:  # of its kind or size
        raise
    except (ValueError, OSError) as error:
        raise SettingError("run", str(path), "the JSON that nas_kd wrote", hint) from error
    return check_document(path, value, keys, hint)


class CsvLog:
    """An append-only CSV file: every row is on disk when `append` returns.

    Floats are written by repr and therefore read back exactly. An incomplete last line, left by a kill, is dropped
    on opening.

    Args:
        path: the file; it is created with the first row.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.exists():
            data = read_bytes(self.path, TABLE)
            if data and not data.endswith(b"\n"):
                atomic_write(self.path, data[: data.rfind(b"\n") + 1])

    @property
    def columns(self) -> list[str]:
        """The header; empty before the first row."""
        if not self.path.exists():
            return []
        with open(self.path, newline="", encoding="utf-8", errors="replace") as file:
            return next(csv.reader([file.readline(LONGEST_HEADER)]), [])

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one row.

        Args:
            row: column to scalar; the first row sets the columns and their order; None is an empty cell.

        Raises:
            SettingError: the disk is full or read-only.
            ValueError: the columns differ from the header.
        """
        self.extend([row])

    def extend(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows like `append`, in one write.

        Raises:
            SettingError: the disk is full or read-only.
            ValueError: the columns differ from the header.
        """
        if not rows:
            return
        header = self.columns
        columns = header or list(rows[0])
        lines = [] if header else [columns]
        for row in rows:
            if set(row) != set(columns):
                raise ValueError(f"{self.path.name}: row has columns {sorted(row)}, file has {sorted(columns)}")
            lines.append([_cell(row[column]) for column in columns])
        with on_disk(self.path):
            # one write call: a kill leaves at most one incomplete line, and rows of two processes never mix
            handle = not_through(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
            try:
                _append(handle, _csv(lines))
            finally:
                os.close(handle)

    def rows(self) -> list[dict[str, str]]:
        """Read all rows as text."""
        if not self.path.exists():
            return []
        return list(csv.DictReader(io.StringIO(read_text(self.path, TABLE), newline="")))

    def frame(self) -> pd.DataFrame:
        """Read all rows, with floats exactly as they were appended."""
        return read_frame(self.path)

    def cut(self, column: str, value: float) -> None:
        """Drop the rows after a checkpoint: those whose ``column``, such as ``"epoch"``, exceeds ``value``."""
        rows = self.rows()
        kept = [list(row.values()) for row in rows if float(row[column]) <= value]
        if len(kept) < len(rows):
            atomic_write(self.path, _csv([self.columns, *kept]))


def _append(handle: int, data: bytes) -> None:
    """Append bytes, all or none: a full disk accepts a part of them and fails at the next write."""
    written = 0
    try:
        while written < len(data):
            written += os.write(handle, data[written:])
        os.fsync(handle)
    except OSError:
        end = os.fstat(handle).st_size
        if 0 < written <= end and os.pread(handle, written, end - written) == data[:written]:
            os.ftruncate(handle, end - written)
        raise


def _cell(value: Any) -> str:
    value = _scalar(value)
    if value is not None and not isinstance(value, str | int | float | bool):
        raise TypeError(f"a CSV cell is a scalar, not {type(value).__name__}")
    text = "" if value is None else repr(value) if isinstance(value, float) else str(value)
    return text.replace("\n", " ").replace("\r", " ")  # a row is one line


def _csv(lines: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue().encode()


def read_frame(path: str | Path, needs: Sequence[str] = ()) -> pd.DataFrame:
    """Read a CSV file of a run, with floats exactly as they were written; a missing file is an empty frame.

    Args:
        needs: columns that it must have, unless it is empty.

    Raises:
        SettingError: the file is damaged, lacks a column, or holds text where numbers belong.
    """
    import pandas as pd

    path = Path(path)
    hint = f"delete {path.parent} and run the same command again"
    content = read_bytes(path, TABLE, hint=hint) if path.exists() else b""
    if not content:
        return pd.DataFrame()
    text = {"key": str}  # the key of an arch may consist of digits
    # from pandas 3.1 on the only converter is exact, and the argument is deprecated
    new = tuple(int(part) for part in pd.__version__.split(".")[:2]) >= (3, 1)
    exact: dict[str, Any] = {} if new else {"float_precision": "round_trip"}
    try:
        table = pd.read_csv(io.BytesIO(content), dtype=text, **exact)
    except (ValueError, OverflowError) as error:  # also pandas' ParserError and UnicodeDecodeError
        raise SettingError("run", str(path), "the table that nas_kd wrote", hint) from error
    return check_table(path, table, needs, hint)
