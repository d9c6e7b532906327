"""Rating tables as checked arrays, the input of every solver."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nas_kd.errors import SettingError


@dataclass(frozen=True)
class Rows:
    """The valid rows of one stage.

    Args:
        index: labels of the rows in the table.
        columns: values by column name, each of shape (N,); integers are int64.
        rank: (N,) rank of each label among all labels.
        enter: (N,) code of the row's input width, comparable with ``leave`` of the previous stage.
        leave: (N,) code of the row's output width; 0 in the last stage.
    """

    index: pd.Index
    columns: dict[str, np.ndarray]
    rank: np.ndarray
    enter: np.ndarray
    leave: np.ndarray

    def take(self, keep: np.ndarray) -> Rows:
        """Return the rows at the positions ``keep``, in that order."""
        columns = {name: values[keep] for name, values in self.columns.items()}
        return Rows(self.index[keep], columns, self.rank[keep], self.enter[keep], self.leave[keep])


def read_tables(tables: Sequence[pd.DataFrame], columns: Sequence[str]) -> tuple[list[Rows], int]:
    """Check rating tables and convert them to arrays.

    Args:
        tables: one table per stage.
        columns: required columns; a row that is not finite in one of them, in its score or in its
            widths is dropped, and so is one scored on fewer ``images`` than the others.

    Returns:
        The rows of each stage, and the total number of dropped rows.

    Raises:
        SettingError: there is no table, a column is missing, labels repeat, or a stage has no valid row.
    """
    if isinstance(tables, pd.DataFrame):
        raise SettingError("tables", "one DataFrame", "a list of tables, one per stage", "use tables=[table]")
    if not len(tables):
        raise SettingError("tables", tables, "at least one table, one per stage")
    stages = []
    dropped = 0
    for number, table in enumerate(tables, 1):
        where = f"tables[{number - 1}]"
        for name in columns:
            if name not in table.columns:
                expected = f"a table with the columns {', '.join(columns)}; this one has {list(table.columns)}"
                raise SettingError(f"{where}.{name}", "missing", expected, "use a column of all tables")
        if not table.index.is_unique:
            twice = table.index[table.index.duplicated()][0]
            hint = "use reset_index(drop=True)"
            raise SettingError(f"{where}.index", twice, "unique labels", hint)
        known = [name for name in ("score", "in_width", "out_width") if name in table]
        needed = list(dict.fromkeys([*columns, *known]))
        values = {name: _floats(table[name], f"{where}.{name}") for name in needed}
        usable = np.logical_and.reduce([np.isfinite(v) for v in values.values()])
        if "images" in table:  # successive halving scores early losers on fewer images
            rated = table["images"].to_numpy()
            usable &= rated == rated.max()
        keep = np.flatnonzero(usable)
        if not len(keep):
            expected = "at least one row without NaN"
            raise SettingError(where, f"{len(table)} rows", expected, "rate the stage again")
        dropped += len(table) - len(keep)
        kept = {name: v[keep] if name == "score" else _whole(v[keep]) for name, v in values.items()}
        zero = np.zeros(len(keep), dtype=np.int64)
        stages.append(Rows(table.index[keep], kept, _ranks(table.index[keep]), zero, zero))
    return _coupled(stages), dropped


def _floats(column: pd.Series, where: str) -> np.ndarray:
    try:
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise SettingError(where, str(column.dtype), "a column of numbers", "convert the column") from error


def _whole(values: np.ndarray) -> np.ndarray:
    """Convert integral values to int64, so that sums of MACs and parameters are exact."""
    if len(values) and np.abs(values).max() < 2**53 and (values == np.rint(values)).all():
        return values.astype(np.int64)
    return values


def _ranks(index: pd.Index) -> np.ndarray:
    ranks = np.arange(len(index))
    if not index.is_monotonic_increasing:
        ranks[index.argsort()] = np.arange(len(index))
    return ranks


def _coupled(stages: list[Rows]) -> list[Rows]:
    """Use the same width codes on both sides of every boundary; without width columns nothing is coupled."""
    for number in range(len(stages) - 1):
        left = stages[number]
        right = stages[number + 1]
        if "out_width" in left.columns and "in_width" in right.columns:
            both = np.concatenate([left.columns["out_width"], right.columns["in_width"]])
            codes = np.unique(both, return_inverse=True)[1].reshape(-1)
            left, right = (
                Rows(left.index, left.columns, left.rank, left.enter, codes[: len(left.index)]),
                Rows(right.index, right.columns, right.rank, codes[len(left.index) :], right.leave),
            )
            stages[number], stages[number + 1] = left, right
    return stages


def groups(*keys: np.ndarray) -> Iterator[np.ndarray]:
    """Iterate over the positions of equal keys.

    Args:
        keys: arrays of shape (N,), compared together.

    Returns:
        One array of positions per distinct key, each ascending.
    """
    code = np.zeros(len(keys[0]), dtype=np.int64)
    for key in keys:
        inverse = np.unique(key, return_inverse=True)[1].reshape(-1)
        code = code * (int(inverse.max(initial=0)) + 1) + inverse
    order = np.argsort(code, kind="stable")
    cuts = np.flatnonzero(np.diff(code[order])) + 1
    return iter(np.split(order, cuts))


def remaining(stages: Sequence[Rows], column: str, largest: bool = False) -> list[np.ndarray]:
    """Return the smallest (or largest) sum of a column from every stage to the end.

    Args:
        stages: from `read_tables`.

    Returns:
        S + 1 arrays: entry [i][w] is for chains that enter stage i with width code w; infinite (minus
        infinity for the largest) if there are none.
    """
    nothing = -np.inf if largest else np.inf
    reduce = np.maximum if largest else np.minimum
    after = np.zeros(1)
    bounds = [after]
    for number in range(len(stages) - 1, -1, -1):
        rows = stages[number]
        before = stages[number - 1].leave if number else np.zeros(1, dtype=np.int64)
        bound = np.full(max(int(rows.enter.max()), int(before.max())) + 1, nothing)
        reduce.at(bound, rows.enter, rows.columns[column] + after[rows.leave])
        after = bound
        bounds.insert(0, bound)
    return bounds


def no_chain(stages: Sequence[Rows]) -> SettingError:
    """Return the error of tables whose widths do not match."""
    for number in range(len(stages) - 1):
        if not np.isin(stages[number].leave, stages[number + 1].enter).any():
            gives = sorted(set(stages[number].columns["out_width"].tolist()))
            expected = f"one of the out_width values {gives} of tables[{number}]"
            needs = sorted(set(stages[number + 1].columns["in_width"].tolist()))
            field = f"tables[{number + 1}].in_width"
            return SettingError(field, needs, expected, "rate the stage at these widths")
    expected = "tables with a chain in which in_width equals the previous out_width"
    hint = "rate every stage at all its input widths"
    return SettingError("tables", f"{len(stages)} stages", expected, hint)
