"""The rows of a table that no other row beats."""

from __future__ import annotations

import pandas as pd


def pareto(frame: pd.DataFrame, cost: str, value: str, *, lower: bool = True) -> pd.DataFrame:
    """Return the rows that no other row beats in both cost and value.

    Args:
        frame: any table; rows with a missing cost or value are left out.
        cost: column of which less is better, such as ``"macs"``.
        value: column to be good in, such as ``"kl"`` or ``"accuracy"``.
        lower: whether less of ``value`` is better.

    Returns:
        The front, cheapest first, values strictly improving; of equal rows the first.
    """
    rows = frame.dropna(subset=[cost, value])
    rows = rows.sort_values([cost, value], ascending=[True, lower], kind="stable")
    signed = rows[value] if lower else -rows[value]
    before = signed.cummin().shift(fill_value=float("inf"))
    return rows[signed < before].reset_index(drop=True)
