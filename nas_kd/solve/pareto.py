"""Pareto fronts of tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd


def pareto(frame: pd.DataFrame, cost: str, value: str, *, lower: bool = True) -> pd.DataFrame:
    """Return the Pareto front of a cost and a value.

    Args:
        frame: any table; rows with a missing or infinite cost or value are dropped.
        cost: column to minimise, such as ``"macs"``.
        value: column to optimise, such as ``"kl"`` or ``"accuracy"``.
        lower: whether lower values are better.

    Returns:
        The front, cheapest first, with strictly improving values; of equal rows the first.
    """
    return nondominated(frame, (cost, value), () if lower else (value,))


def nondominated(frame: pd.DataFrame, columns: Sequence[str], high: Sequence[str] = ()) -> pd.DataFrame:
    """Return the rows that no other row dominates in some columns.

    Args:
        frame: any table; rows where one of the columns is missing or infinite are dropped.
        columns: the columns to optimise.
        high: those to maximise; the others are minimised.

    Returns:
        The front, sorted by the columns in order, best first; of equal rows the first.
    """
    rows = frame[np.isfinite(frame[list(columns)].astype(float)).all(axis=1)]
    rows = rows.sort_values(list(columns), ascending=[name not in high for name in columns], kind="stable")
    losses = rows[list(columns)].assign(**{name: -rows[name] for name in high}).to_numpy(dtype=float)
    kept: list[int] = []
    for place, row in enumerate(losses):  # a dominating row comes first
        if not (losses[kept] <= row).all(axis=1).any():
            kept.append(place)
    return rows.iloc[kept].reset_index(drop=True)
