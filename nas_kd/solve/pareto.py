"""The rows of a table that no other row beats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd


def pareto(frame: pd.DataFrame, cost: str, value: str, *, lower: bool = True) -> pd.DataFrame:
    """Return the rows that no other row beats in both cost and value.

    Args:
        frame: any table; rows with a missing or infinite cost or value are left out.
        cost: column of which less is better, such as ``"macs"``.
        value: column to be good in, such as ``"kl"`` or ``"accuracy"``.
        lower: whether less of ``value`` is better.

    Returns:
        The front, cheapest first, values strictly improving; of equal rows the first.
    """
    return unbeaten(frame, (cost, value), () if lower else (value,))


def unbeaten(frame: pd.DataFrame, columns: Sequence[str], high: Sequence[str] = ()) -> pd.DataFrame:
    """Return the rows that no other row beats in all of some columns.

    Args:
        frame: any table; rows where one of them is missing or infinite are left out.
        columns: what to be good in.
        high: those of them of which more is better; of the others less is.

    Returns:
        The front, sorted by the columns in their order, best first; of equal rows the first.
    """
    rows = frame[np.isfinite(frame[list(columns)].astype(float)).all(axis=1)]
    rows = rows.sort_values(list(columns), ascending=[name not in high for name in columns], kind="stable")
    lost = rows[list(columns)].assign(**{name: -rows[name] for name in high}).to_numpy(dtype=float)
    kept: list[int] = []
    for place, row in enumerate(lost):  # who beats a row comes before it
        if not (lost[kept] <= row).all(axis=1).any():
            kept.append(place)
    return rows.iloc[kept].reset_index(drop=True)
