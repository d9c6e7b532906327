"""A table of results to which several processes append."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_kd.runs.files import CsvLog, atomic_write, read_frame
from nas_kd.runs.lock import held

if TYPE_CHECKING:
    import pandas as pd


class ResultTable:
    """One row per arch and seed.

    Args:
        path: the CSV file, the same for all processes.
        columns: including ``key`` and ``seed``.

    Raises:
        SettingError: there are no file locks, or the file is damaged or not writable; the same in all methods.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path = path
        self.columns = list(columns)
        self._lock = path.parent / "claims" / "table.lock"
        with self.locked():
            if not path.exists():
                atomic_write(path, ",".join(columns) + "\n")
            CsvLog(path)  # drops the incomplete line of a killed process

    def locked(self) -> AbstractContextManager[bool]:
        """Keep other processes from adding rows."""
        return held(self._lock, wait=True)

    def frame(self) -> pd.DataFrame:
        """Read all rows."""
        with self.locked():
            return read_frame(self.path)

    def done(self) -> set[tuple[str, int]]:
        """Return (key, seed) of all rows."""
        table = self.frame()
        return set(zip(table["key"], table["seed"].astype(int), strict=True))

    def rename(self, names: Mapping[str, str]) -> None:
        """Rename the columns of a table that was begun with other names."""
        with self.locked():
            old = CsvLog(self.path).columns
            if names.keys() <= {*old} and names.keys() != {*names.values()}:
                frame = read_frame(self.path).rename(columns=names)
                atomic_write(self.path, frame.to_csv(index=False))

    def append(self, row: Mapping[str, Any]) -> None:
        """Append the table's columns of a row."""
        with self.locked():
            CsvLog(self.path).append({name: row[name] for name in self.columns})
