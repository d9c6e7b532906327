"""The choices of each stage that are worth being scored in whole subnets."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from nas_kd.solve.front import pruned


def shortlists(tables: Sequence[pd.DataFrame], budgets: Sequence[str] = ("macs",), least: int = 16) -> list[list[int]]:
    """Return the choices on the first fronts of each stage for some input width.

    The front of a stage can be a handful of rows, too few for a search. So further fronts are added until the
    stage has ``least`` choices or none are left.

    Args:
        tables: one rating table per stage with the columns of `exact_front` and ``choice``, the number of a row's
            choice, which rows of several input widths can share.
        budgets: cost columns of the fronts.
        least: minimum number of choices per stage.

    Returns:
        For each stage the values of ``choice``, in ascending order of the first budget.
    """
    chosen: list[dict[int, float]] = [{} for _ in tables]
    left = list(tables)
    while any(len(c) < least and len(t) for c, t in zip(chosen, left, strict=True)) and all(map(len, left)):
        for number, rows in enumerate(pruned(left, budgets)):
            front = left[number].loc[rows]
            if len(chosen[number]) < least:
                for choice, cost in zip(front["choice"], front[budgets[0]], strict=True):
                    chosen[number].setdefault(int(choice), float(cost))
            rest = left[number].drop(index=rows)
            # drop chosen ones, but keep the last rows: tables must not be empty
            left[number] = rest[~rest["choice"].isin(chosen[number])]
        if not all(len(t) or len(c) >= least for t, c in zip(left, chosen, strict=True)):
            left = [t if len(t) else tables[i].iloc[:0] for i, t in enumerate(left)]
    return [sorted(c, key=lambda choice: (c[choice], choice)) for c in chosen]
