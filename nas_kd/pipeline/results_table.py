"""The final table as text: no wider than the terminal, with what matters least left out, and the paths below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from nas_kd.analyse.choice import indistinguishable
from nas_kd.analyse.table import Columns
from nas_kd.config.measures import Measure

LEAST = 60  # columns of a terminal that hold role and measure of any run


class _Column(NamedTuple):
    """A column of the table; the one of the highest ``drop`` is left out first, those of 0 never."""

    head: str
    cells: list[str]
    right: bool
    drop: int


def results_table(frame: pd.DataFrame, measure: Measure, width: int) -> list[str]:
    """Draw the table of results.

    Args:
        frame: of `final_table`.
        measure: the run's.
        width: of the terminal in characters.

    Returns:
        Lines of at most ``width`` characters where the roles' names allow it, then one a student with its folder.
    """
    columns = _columns(frame, measure)
    while _wide(columns) > max(width, LEAST) and any(column.drop for column in columns):
        least = max(columns, key=lambda column: column.drop)
        columns = [column for column in columns if column is not least]
    widths = [max(map(len, (column.head, *column.cells))) for column in columns]

    def line(cells: list[str]) -> str:
        shown = [
            f"{cell:>{wide}}" if column.right else f"{cell:{wide}}"
            for cell, wide, column in zip(cells, widths, columns, strict=True)
        ]
        return f"│ {' │ '.join(shown)} │"

    def rule(left: str, middle: str, right: str) -> str:
        return left + middle.join("─" * (wide + 2) for wide in widths) + right

    heads = [rule("┌", "┬", "┐"), line([column.head for column in columns]), rule("├", "┼", "┤")]
    rows = [line([column.cells[at] for column in columns]) for at in range(len(frame))]
    return [*heads, *rows, rule("└", "┴", "┘"), *_folders(frame)]


def _columns(frame: pd.DataFrame, measure: Measure) -> list[_Column]:
    rows: Sequence[Mapping[Any, Any]] = frame.to_dict("records")
    names = Columns(measure)
    same = indistinguishable(frame)
    digits = measure.digits
    means = [
        f"{row[names.mean]:.{digits}f}" + (f" ± {row[names.sd]:.{digits}f}" if row["seeds"] > 1 else "") for row in rows
    ]
    marks = [
        ("<" if row["handed_over"] else "=" if row["role"] in same else "")
        + ("!" if pd.notna(row["collapsed"]) and row["collapsed"] > 0 else "")
        for row in rows
    ]
    agreed = [row["agreement_mean_percent"] for row in rows]
    return [
        _Column("", [str(row["role"]) for row in rows], False, 0),
        _Column("arch", [str(row["arch"]) for row in rows], False, 2),
        _Column("MACs", [short_count(row["macs"]) for row in rows], True, 1),
        _Column("params", [short_count(row["params"]) for row in rows], True, 3),
        _Column(f"{measure.words}{measure.symbol}", means, True, 0),
        _Column("", marks, False, 0),
        _Column("agreement %", ["-" if pd.isna(each) else f"{each:.2f}" for each in agreed], True, 4),
        _Column("seeds", [str(row["seeds"]) for row in rows], True, 5),
    ]


def _wide(columns: list[_Column]) -> int:
    return 1 + sum(3 + max(map(len, (column.head, *column.cells))) for column in columns)


def _folders(frame: pd.DataFrame) -> list[str]:
    known = frame[frame["folder"].map(lambda folder: isinstance(folder, str))]
    wide = max((len(str(role)) for role in known["role"]), default=0)
    pairs = zip(known["role"], known["folder"], strict=True)
    return [f"  {role:{wide}}  {folder}" for role, folder in pairs]


def short_count(count: Any) -> str:
    """Write a number of MACs or parameters with four digits: ``207.2k``, ``4.089G``; a missing one is a dash."""
    if pd.isna(count):
        return "-"
    for unit, factor in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= factor:
            return f"{count / factor:#.4g}{unit}"
    return str(count)
