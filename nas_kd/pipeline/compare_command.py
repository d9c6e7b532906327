"""`nas-kd compare RUN RUN ...`: print what several runs found, and write it as tables and a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from nas_kd.analyse.compare import Comparison, compare, write_comparison
from nas_kd.config.measures import MEASURES
from nas_kd.errors import SettingError
from nas_kd.pipeline.results_table import short_count

HERE = "compare"  # folder of the files where none is named
LONGEST = 24  # characters of a setting's value that are printed; settings.csv has all
USAGE = "nas-kd compare RUN RUN ... [--out DIR]"


def read_compare(arguments: Sequence[str]) -> tuple[list[str], str]:
    """Read the run folders and the folder of the files.

    Raises:
        SettingError: an option is unknown or lacks its value.
    """
    runs: list[str] = []
    out = HERE
    rest = list(arguments)
    while rest:
        token = rest.pop(0)
        name, equals, value = token.partition("=")
        if name == "--out":
            if not equals and not rest:
                raise SettingError("out", None, "a folder", USAGE)
            out = value if equals else rest.pop(0)
        elif token.startswith("-"):
            raise SettingError("setting", token, "run folders and --out", USAGE)
        else:
            runs.append(token)
    return runs, out


def compare_command(runs: Sequence[str], out: str) -> None:
    """Compare runs, print the comparison and write it to a folder."""
    found = compare(runs)
    print("\n".join(comparison_lines(found)))
    print(f"written: {', '.join(map(str, write_comparison(found, out)))}")


def comparison_lines(found: Comparison) -> list[str]:
    """Word a comparison: settings that differ, then a table a test set."""
    lines = ["settings that differ:"] if len(found.settings) else ["no setting differs"]
    if len(found.settings):
        full = found.settings.to_numpy().tolist()
        short = [
            [name, *(each if len(each) <= LONGEST else f"{each[: LONGEST - 3]}..." for each in row)]
            for name, *row in full
        ]
        lines += _aligned([list(found.settings.columns), *short], right=())
    groups = found.by_test_set()
    if len(groups) > 1:
        parts = ["; ".join(dict.fromkeys(rows["run"])) for rows in groups]
        lines += ["", f"not the same test images or measure: {' | '.join(parts)}", "each has a table of its own below"]
    for rows in groups:
        lines += ["", *_aligned(_cells(rows), right=(2, 3, 4, 5, 6, 7))]
    named = [[_name(row, found.table), str(row["budget"])] for row in found.table.to_dict("records")]
    lines += ["", *_aligned([["run", "budget"], *named], right=())]
    return lines


def _name(row: Mapping[Any, Any], rows: pd.DataFrame) -> str:
    several = rows.loc[rows["run"] == row["run"], "search"].nunique() > 1
    return f"{row['run']} {row['search']}" if several else str(row["run"])


def _cells(rows: pd.DataFrame) -> list[list[str]]:
    measure = MEASURES[str(rows["metric"].iloc[0])]
    cells = [["run", "student", "MACs", "params", f"{measure.words}{measure.symbol}", "seeds", "teacher", "minutes"]]
    for row in rows.to_dict("records"):
        mean, sd = (f"{row[each]:.{measure.digits}f}" if pd.notna(row[each]) else "-" for each in ("mean", "sd"))
        reached = mean if sd == "-" else f"{mean} ± {sd}"
        teacher = "-" if pd.isna(row["teacher"]) else f"{row['teacher']:.{measure.digits}f}"
        minutes = "-" if pd.isna(row["minutes"]) else f"{row['minutes']:.1f}"
        seeds = "-" if pd.isna(row["seeds"]) else str(int(row["seeds"]))
        role = "-" if pd.isna(row["role"]) else str(row["role"])
        cells.append(
            [
                _name(row, rows),
                role,
                short_count(row["macs"]),
                short_count(row["params"]),
                reached,
                seeds,
                teacher,
                minutes,
            ]
        )
    return cells


def _aligned(cells: list[list[str]], right: Sequence[int]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            f"{cell:>{wide}}" if at in right else f"{cell:{wide}}"
            for at, (cell, wide) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
