"""The largest sum of a bounded cost, for the size controls.

Branch and bound cannot prove the optimum of a sum that is bounded itself (minutes on thousands of rows). But costs
repeat often, so chains have few distinct sums: dynamic programming with one cell per sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import gcd

import numpy as np

from nas_kd.solve.tables import Rows, groups, remaining

CELLS = 100_000  # distinct sums; with more of them a cell holds several


def largest(stages: Sequence[Rows], column: str, bounds: Mapping[str, float], other: str) -> list[int] | None:
    """Find the chain with the largest sum of a bounded column.

    Args:
        stages: from `read_tables`.
        column: the cost to maximise; it is one of ``bounds``.
        bounds: upper bounds by column: ``column`` and, optionally, ``other``.
        other: a second cost, minimised among equal sums of the first.

    Returns:
        The position of each stage's row, or None if no chain is within the bounds. The sum is the largest if
        there are at most `CELLS` distinct sums below the bound, as for integers with a common factor;
        otherwise it is the largest up to about a cell per stage, 1e-5 of the range.

    Source:
        Dynamic programming for subset sums, rounded as in Ibarra and Kim (1975).
    """
    values = [rows.columns[column] for rows in stages]
    bases = [v.min() for v in values]
    upper = bounds[column]
    upper_other = bounds.get(other, np.inf)
    span = upper - sum(bases)
    if span < 0:
        return None
    span = min(span, sum(v.max() for v in values) - sum(bases))
    unit = span / CELLS
    if all(v.dtype.kind == "i" for v in values):
        common = gcd(*(int(np.gcd.reduce(v - base)) for v, base in zip(values, bases, strict=True)))
        unit = max(common, int(np.ceil(unit)), 1)
    cells = int(span // unit) + 1 if unit else 1
    least = remaining(stages, column)
    least_other = remaining(stages, other)
    small = {0: np.full(cells, np.inf)}  # by width code: the smallest sum of the other cost in each cell
    exact = {0: np.zeros(cells)}  # and the sum of the column of that chain
    small[0][0] = 0.0
    history = []
    for number, rows in enumerate(stages):
        shifts = ((values[number] - bases[number]) // unit if unit else np.zeros(len(rows.rank))).astype(np.int64)
        grown: dict[int, np.ndarray] = {}
        grown_exact: dict[int, np.ndarray] = {}
        came_from: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for leave in np.unique(rows.leave).tolist():
            grown[leave], grown_exact[leave] = np.full(cells, np.inf), np.zeros(cells)
            came_from[leave] = np.zeros(cells, dtype=np.int64), np.zeros(cells, dtype=np.int64)
        for at in _distinct(rows, shifts, other):
            enter = int(rows.enter[at])
            leave = int(rows.leave[at])
            shift = int(shifts[at])
            if enter not in small or shift >= cells:
                continue
            before = small[enter][: cells - shift] + rows.columns[other][at]
            total = exact[enter][: cells - shift] + values[number][at]
            target = grown[leave][shift:]
            # rounding must not drop a chain: sums slightly above the bound are dropped at the end
            fits = total + least[number + 1][leave] <= upper + (1e-9 * abs(upper) if number < len(stages) - 1 else 0)
            better = (before < target) & fits & (before + least_other[number + 1][leave] <= upper_other)
            target[better] = before[better]
            grown_exact[leave][shift:][better] = total[better]
            came_from[leave][0][shift:][better] = at
            came_from[leave][1][shift:][better] = enter
        small = grown
        exact = grown_exact
        history.append((came_from, shifts))
    sums = np.where(np.isfinite(small[0]), exact[0], -np.inf)
    cell = int(np.argmax(sums))
    state = 0
    if not np.isfinite(sums[cell]):
        return None
    picks = []
    for came_from, shifts in reversed(history):
        row_of, state_of = came_from[state]
        picks.append(int(row_of[cell]))
        cell, state = cell - int(shifts[picks[-1]]), int(state_of[cell])
    return picks[::-1]


def _distinct(rows: Rows, shifts: np.ndarray, other: str) -> list[int]:
    """Return one row per pair of widths and cell: the one with the least of the other cost."""
    kept = []
    for at in groups(rows.enter, rows.leave, shifts):
        kept.append(int(at[np.lexsort((rows.rank[at], rows.columns[other][at]))[0]]))
    return kept
