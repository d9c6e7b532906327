"""Rating tables as a stage of a run keeps them: one CSV a stage of the space, with whose ratings they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nas_kd.errors import SettingError

if TYPE_CHECKING:
    import pandas as pd

    from nas_kd.runs.stage import Stage


def mark(name: str, hash_: str) -> str:
    """Return what a table says of a space or a teacher: its name, and the hash that counts."""
    return f"{name} {hash_[:12]}"  # digits alone would be read back from a CSV as a number


def finish_ratings(
    stage: Stage, tables: Mapping[int, pd.DataFrame], facts: Mapping[str, Any] | None = None
) -> list[pd.DataFrame]:
    """Mark a rating done, whose tables ``stage_N.csv`` are written.

    Args:
        stage: the folder ``blockwise`` of a run, or that of one stage's job.
        tables: by the number of the stage of the space, from 1.
        facts: what else is known.

    Returns:
        The tables as they are read back.
    """
    rows = {str(number): len(table) for number, table in tables.items()}
    stage.finish({"rows": rows} | dict(facts or {}))
    return read_ratings(stage)


def read_ratings(stage: Stage) -> list[pd.DataFrame]:
    """Read the tables of a finished rating, whole.

    Args:
        stage: the folder ``blockwise`` of a run, or that of one stage's job.

    Raises:
        SettingError: a table is damaged.
    """
    tables = []
    for number, rows in stage.facts["rows"].items():
        table = stage.read_frame(f"stage_{number}.csv")
        if len(table) != rows or "images" not in table or table["images"].isna().any():
            expected = f"the table of {rows} rows that nas_kd wrote"
            hint = f"delete {stage.folder} and give the same command again"
            raise SettingError("run", str(stage.folder / f"stage_{number}.csv"), expected, hint)
        tables.append(table)
    return tables
