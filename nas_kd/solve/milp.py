"""Best chains under any number of budgets, by integer programming."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from nas_kd.solve.largest import largest
from nas_kd.solve.limits import Caps, Limits, infeasible, limits_of
from nas_kd.solve.tables import Rows, groups, no_chain, read_tables, remaining


def best(
    tables: Sequence[pd.DataFrame],
    *,
    caps: Caps,
    objective: str = "score",
    maximise: bool = False,
    gap: float = 0.0,
) -> pd.Series:
    """Find the chain with the best sum of one column within budgets on others.

    Args:
        tables: one table per stage, as for `exact_front`.
        caps: largest allowed sum by column name, or the smallest and the largest, either of them None.
        objective: the column that is summed up.
        maximise: look for the largest sum; with ``objective="macs"`` this is the largest-MACs control.
        gap: relative distance to the optimum at which the integer program may stop.

    Returns:
        macs, params, score (those that the tables have), every capped column and row_1 ... row_S.

    Raises:
        SettingError: a table is not usable, no chain exists, or no chain is within the budgets; then the
            smallest feasible value of every capped column is named.

    Source:
        Multiple-choice knapsack with the coupling of widths as flow, solved by HiGHS (scipy.optimize.milp);
        the largest sum of a capped column by `nas_kd.solve.largest`, to 1e-5 at worst.
    """
    limits = limits_of(caps)
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
    if picks is None:  # also where rounding hid the only chains within the caps
        picks = solve(stages, limits, objective, maximise, gap)
    if picks is None:
        raise infeasible(stages, limits, solve)
    found: dict[str, object] = {name: chain_sum(stages, picks, name) for name in [*shown, *limits, objective]}
    for number, (rows, at) in enumerate(zip(stages, picks, strict=True), 1):
        found[f"row_{number}"] = rows.index[at]
    return pd.Series(found, dtype=object)


def feasible_range(tables: Sequence[pd.DataFrame], column: str) -> tuple[float, float]:
    """Sum the cheapest and the dearest chain.

    Args:
        tables: one table per stage, as for `exact_front`.
        column: the cost.

    Returns:
        Smallest and largest sum over all chains, integers where the column holds integers.

    Raises:
        SettingError: a table is not usable, or no chain exists.
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
    apart: Sequence[Sequence[int]] = (),
    shared: int = 0,
) -> list[int] | None:
    """Solve the integer program.

    Args:
        stages: the rows of each stage.
        limits: smallest and largest allowed sum by column.
        objective: the column that is summed up.
        maximise: look for the largest sum.
        gap: as for `best`.
        apart: chains, as positions of rows, to keep away from.
        shared: rows that the chain may have in common with each of them at most.

    Returns:
        The position of each stage's row, or None when the limits cannot be kept.

    Source: diversity cuts: Puzzle (Bercovich et al. 2024), section 4.3.
    """
    floors = {name: (low, high) for name, (low, high) in limits.items() if low > -np.inf}
    if floors and not maximise:  # with floors hardly a row can be left out; often no floor binds
        relaxed = dict(limits) | {name: (-np.inf, high) for name, (_, high) in floors.items()}
        picks = _solve(stages, relaxed, objective, maximise, gap, apart, shared)
        if picks is None or all(chain_sum(stages, picks, name) >= low for name, (low, _) in floors.items()):
            return picks
    return _solve(stages, limits, objective, maximise, gap, apart, shared)


def _solve(
    stages: Sequence[Rows],
    limits: Limits,
    objective: str,
    maximise: bool,
    gap: float,
    apart: Sequence[Sequence[int]],
    shared: int,
) -> list[int] | None:
    from scipy import sparse
    from scipy.optimize import Bounds, LinearConstraint, milp

    sign = -1.0 if maximise else 1.0
    kept = [useful(rows, limits, objective, maximise, len(apart) + 1) for rows in stages]
    offsets = np.cumsum([0, *(len(keep) for keep in kept)])
    value = np.concatenate([rows.columns[objective][keep] for rows, keep in zip(stages, kept, strict=True)])
    # HiGHS stops at an absolute gap of 1e-6: large coefficients make that gap harmless
    weights = sign * value * (1e4 / (float(np.abs(value).max()) or 1.0))
    rules = []
    low = []
    high = []
    for number in range(len(stages)):  # one row per stage
        rules.append(_line(offsets[-1], range(offsets[number], offsets[number + 1])))
        low.append(1.0)
        high.append(1.0)
    for number in range(len(stages) - 1):  # as many leave with a width as enter with it
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
    for chain in apart:
        line = np.zeros(offsets[-1])
        for offset, keep, other in zip(offsets, kept, chain, strict=False):
            line[offset + np.flatnonzero(keep == other)] = 1.0
        rules.append(line)
        low.append(-np.inf)
        high.append(float(shared))
    while True:
        solved = milp(
            weights,
            constraints=LinearConstraint(sparse.csr_array(np.stack(rules)), low, high),
            bounds=Bounds(0, 1),
            integrality=np.ones(len(weights), dtype=np.int64),
            options={"mip_rel_gap": gap},
        )
        if solved.status == 2:
            return None
        if solved.x is None:
            raise RuntimeError(f"scipy.optimize.milp gave up: {solved.message}")
        at = [int(np.argmax(solved.x[a:b])) for a, b in zip(offsets, offsets[1:], strict=False)]
        picks = [int(keep[i]) for keep, i in zip(kept, at, strict=True)]
        if all(a <= chain_sum(stages, picks, name) <= b for name, (a, b) in limits.items()):
            return picks
        # within HiGHS' tolerance of 1e-6 but beyond a limit: forbid this chain and look again
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
    """Find the rows that can be part of the best chains.

    Args:
        rows: the rows of a stage.
        limits: smallest and largest allowed sum by column.
        objective: the column that is summed up.
        maximise: whether to maximise the sum.
        count: number of chains. A row that so many others of the same widths beat, in the objective and
            in every limited column, is in none of them: one of these others could take its place, and is in no
            chain that must be kept away from.

    Returns:
        Positions of the rows, ascending.
    """
    wanted: dict[str, set[int]] = {objective: {-1 if maximise else 1}}
    for name, (least, most) in limits.items():
        wanted.setdefault(name, set()).update(s for s, b in ((-1, least), (1, most)) if np.isfinite(b))
    # where both more and less of a column may be wanted only equals compare
    keys = [rows.enter, rows.leave, *(rows.columns[name] for name, signs in wanted.items() if len(signs) == 2)]
    one_way = [(name, next(iter(signs))) for name, signs in wanted.items() if len(signs) == 1]
    points = np.stack([sign * rows.columns[name] for name, sign in one_way] or [np.zeros(len(rows.rank))], axis=1)
    kept = []
    for at in groups(*keys):
        at = at[np.lexsort((rows.rank[at], *points[at].T[::-1]))]
        beaten = np.zeros(len(at), dtype=np.int64)
        first = 0
        while first < len(at):  # each survivor counts for all it beats; of equals the earlier beats the later
            beaten[first + 1 :] += (points[at[first + 1 :]] >= points[at[first]]).all(axis=1)
            stays = beaten < count
            at = at[stays]
            beaten = beaten[stays]
            first = first + 1
        kept.append(at)
    return np.sort(np.concatenate(kept))
