"""Best chains under any number of budgets, by integer programming."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from nas_kd.solve.largest import largest
from nas_kd.solve.limits import Bounds, Limits, infeasible, limits_of
from nas_kd.solve.tables import Rows, groups, no_chain, read_tables, remaining


def best(
    tables: Sequence[pd.DataFrame],
    *,
    bounds: Bounds,
    objective: str = "score",
    maximise: bool = False,
    gap: float = 0.0,
) -> pd.Series:
    """Find the chain with the best sum of one column within budgets on others.

    Args:
        tables: one table per stage, as for `exact_front`.
        bounds: upper bound of the sum by column name, or a pair of lower and upper bound, either of them None.
        objective: the column to sum.
        maximise: find the largest sum; with ``objective="macs"`` this is the largest-MACs control.
        gap: relative gap to the optimum at which the integer program may stop.

    Returns:
        macs, params, score (those in the tables), every bounded column and row_1 ... row_S.

    Raises:
        SettingError: a table is invalid, no chain exists, or no chain is within the budgets, with the feasible values
            of every bounded column.

    Source:
        Multiple-choice knapsack with the coupling of widths as flow, solved by HiGHS (scipy.optimize.milp);
        the largest sum of a bounded column by `nas_kd.solve.largest`, to 1e-5 at worst.
    """
    limits = limits_of(bounds)
    shown = [name for name in ("macs", "params", "score") if all(name in table for table in tables)]
    stages, _ = read_tables(tables, list(dict.fromkeys([objective, *limits, *shown])))
    if not np.isfinite(remaining(stages, objective)[0]).any():
        raise no_chain(stages)
    picks = None
    second = [name for name in limits if name != objective]
    uppers = {name: high for name, (_, high) in limits.items()}
    if maximise and objective in limits and len(second) < 2 and all(low == -np.inf for low, _ in limits.values()):
        spare = [name for name in ("params", "macs") if name in stages[0].columns and name != objective]
        picks = largest(stages, objective, uppers, (second or spare or [objective])[0])
    if picks is None:  # also if rounding hid the only chains within the bounds
        picks = solve(stages, limits, objective, maximise, gap)
    if picks is None:
        raise infeasible(stages, limits, solve)
    found: dict[str, object] = {name: chain_sum(stages, picks, name) for name in [*shown, *limits, objective]}
    for number, (rows, at) in enumerate(zip(stages, picks, strict=True), 1):
        found[f"row_{number}"] = rows.index[at]
    return pd.Series(found, dtype=object)


def feasible_range(tables: Sequence[pd.DataFrame], column: str) -> tuple[float, float]:
    """Return the smallest and the largest sum of a column over all chains; integers if the column holds integers.

    Args:
        tables: one table per stage, as for `exact_front`.

    Raises:
        SettingError: a table is invalid, or no chain exists.
    """
    stages, _ = read_tables(tables, [column])
    low = float(remaining(stages, column)[0].min())
    high = float(remaining(stages, column, largest=True)[0].max())
    if not np.isfinite(low):
        raise no_chain(stages)
    whole = all(rows.columns[column].dtype.kind == "i" for rows in stages)
    return (int(low), int(high)) if whole else (low, high)


def solve(
    stages: Sequence[Rows],
    limits: Limits,
    objective: str,
    maximise: bool = False,
    gap: float = 0.0,
    excluded: Sequence[Sequence[int]] = (),
    shared: int = 0,
) -> list[int] | None:
    """Solve the integer program.

    Args:
        limits: lower and upper bound of the sum by column.
        objective: the column to sum.
        gap: as for `best`.
        excluded: chains, as positions of rows, from which the result must differ.
        shared: maximum number of rows in common with each of them.

    Returns:
        The position of each stage's row, or None if no chain is within the limits.

    Source: diversity cuts: Puzzle (Bercovich et al. 2024), section 4.3.
    """
    ranges = {name: (low, high) for name, (low, high) in limits.items() if low > -np.inf}
    if ranges and not maximise:  # with lower bounds few rows can be dropped; often none of them binds
        relaxed = dict(limits) | {name: (-np.inf, high) for name, (_, high) in ranges.items()}
        picks = _solve(stages, relaxed, objective, maximise, gap, excluded, shared)
        if picks is None or all(chain_sum(stages, picks, name) >= low for name, (low, _) in ranges.items()):
            return picks
    return _solve(stages, limits, objective, maximise, gap, excluded, shared)


def _solve(
    stages: Sequence[Rows],
    limits: Limits,
    objective: str,
    maximise: bool,
    gap: float,
    excluded: Sequence[Sequence[int]],
    shared: int,
) -> list[int] | None:
    from scipy import optimize, sparse

    sign = -1.0 if maximise else 1.0
    kept = [useful(rows, limits, objective, maximise, len(excluded) + 1) for rows in stages]
    offsets = np.cumsum([0, *(len(keep) for keep in kept)])
    value = np.concatenate([rows.columns[objective][keep] for rows, keep in zip(stages, kept, strict=True)])
    # HiGHS stops at an absolute gap of 1e-6, which large coefficients make harmless
    weights = sign * value * (1e4 / (float(np.abs(value).max()) or 1.0))
    rules = []
    low = []
    high = []
    for number in range(len(stages)):  # one row per stage
        rules.append(_line(offsets[-1], range(offsets[number], offsets[number + 1])))
        low.append(1.0)
        high.append(1.0)
    for number in range(len(stages) - 1):  # flow: as many rows leave with a width as enter with it
        leave = stages[number].leave[kept[number]]
        enter = stages[number + 1].enter[kept[number + 1]]
        for width in np.union1d(leave, enter):
            line = _line(offsets[-1], offsets[number] + np.flatnonzero(leave == width))
            line[offsets[number + 1] + np.flatnonzero(enter == width)] -= 1.0
            rules.append(line)
            low.append(0.0)
            high.append(0.0)
    for name, (least, most) in limits.items():
        cost = np.concatenate([rows.columns[name][keep] for rows, keep in zip(stages, kept, strict=True)])
        bounds = [abs(bound) for bound in (least, most) if np.isfinite(bound)]
        scale = 1e3 / max(float(np.abs(cost).max()), *bounds, np.finfo(float).tiny)
        rules.append(cost * scale)
        low.append(least * scale)
        high.append(most * scale)
    for chain in excluded:
        line = np.zeros(offsets[-1])
        for offset, keep, other in zip(offsets, kept, chain, strict=False):
            line[offset + np.flatnonzero(keep == other)] = 1.0
        rules.append(line)
        low.append(-np.inf)
        high.append(float(shared))
    while True:
        solved = optimize.milp(
            weights,
            constraints=optimize.LinearConstraint(sparse.csr_array(np.stack(rules)), low, high),
            bounds=optimize.Bounds(0, 1),
            integrality=np.ones(len(weights), dtype=np.int64),
            options={"mip_rel_gap": gap},
        )
        if solved.status == 2:
            return None
        if solved.x is None:
            raise RuntimeError(f"scipy.optimize.milp failed: {solved.message}")
        at = [int(np.argmax(solved.x[a:b])) for a, b in zip(offsets, offsets[1:], strict=False)]
        picks = [int(keep[i]) for keep, i in zip(kept, at, strict=True)]
        if all(a <= chain_sum(stages, picks, name) <= b for name, (a, b) in limits.items()):
            return picks
        # within HiGHS' tolerance of 1e-6 but outside a limit: exclude this chain and solve again
        rules.append(_line(offsets[-1], offsets[:-1] + at))
        low.append(-np.inf)
        high.append(len(stages) - 1.0)


def chain_sum(stages: Sequence[Rows], picks: Sequence[int], name: str) -> int | float:
    """Sum a column over a chain given by the positions of its rows."""
    return sum(rows.columns[name][at].item() for rows, at in zip(stages, picks, strict=True))


def _line(length: int, ones: range | np.ndarray) -> np.ndarray:
    line = np.zeros(length)
    line[np.asarray(ones, dtype=np.int64)] = 1.0
    return line


def useful(rows: Rows, limits: Limits, objective: str, maximise: bool, count: int = 1) -> np.ndarray:
    """Return the positions, ascending, of the rows of a stage that can be part of the best chains.

    Args:
        limits: lower and upper bound of the sum by column.
        objective: the column to sum.
        count: number of chains. A row dominated by this many others of the same widths, in the objective and
            in every limited column, is in none of them: at least one of the others is in no excluded chain and could
            replace it.
    """
    directions: dict[str, set[int]] = {objective: {-1 if maximise else 1}}
    for name, (least, most) in limits.items():
        directions.setdefault(name, set()).update(s for s, b in ((-1, least), (1, most)) if np.isfinite(b))
    # if both more and less of a column may be better, only equal values are comparable
    keys = [rows.enter, rows.leave, *(rows.columns[name] for name, signs in directions.items() if len(signs) == 2)]
    one_way = [(name, next(iter(signs))) for name, signs in directions.items() if len(signs) == 1]
    points = np.stack([sign * rows.columns[name] for name, sign in one_way] or [np.zeros(len(rows.rank))], axis=1)
    kept = []
    for at in groups(*keys):
        at = at[np.lexsort((rows.rank[at], *points[at].T[::-1]))]
        dominated = np.zeros(len(at), dtype=np.int64)
        first = 0
        while first < len(at):  # of equal rows the earlier dominates the later
            dominated[first + 1 :] += (points[at[first + 1 :]] >= points[at[first]]).all(axis=1)
            kept_rows = dominated < count
            at = at[kept_rows]
            dominated = dominated[kept_rows]
            first = first + 1
        kept.append(at)
    return np.sort(np.concatenate(kept))
