"""One best chain under any number of caps, by integer programming."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from nas_kd.errors import SettingError
from nas_kd.solve.largest import largest
from nas_kd.solve.tables import Rows, groups, no_chain, read_tables, remaining


def best(
    tables: Sequence[pd.DataFrame],
    *,
    caps: Mapping[str, float],
    objective: str = "score",
    maximise: bool = False,
    gap: float = 0.0,
) -> pd.Series:
    """Find the chain with the best sum of one column under caps on others.

    Args:
        tables: one table a stage, as for `exact_front`.
        caps: largest allowed sum by column name.
        objective: the column that is summed up.
        maximise: look for the largest sum; with ``objective="macs"`` this is the largest-MACs control.
        gap: relative distance to the optimum at which the integer program may stop.

    Returns:
        macs, params, score (those that the tables have), every capped column and row_1 ... row_S.

    Raises:
        SettingError: a table is not usable, no chain exists, or no chain is within the caps; then the
            smallest feasible value of every capped column is named.

    Source:
        Multiple-choice knapsack with the coupling of widths as flow, solved by HiGHS (scipy.optimize.milp);
        the largest sum of a capped column by `nas_kd.solve.largest`, to 1e-5 at worst.
    """
    shown = [name for name in ("macs", "params", "score") if all(name in table for table in tables)]
    stages, _ = read_tables(tables, list(dict.fromkeys([objective, *caps, *shown])))
    if not np.isfinite(remaining(stages, objective)[0]).any():
        raise no_chain(stages)
    picks = None
    second = [name for name in caps if name != objective]
    if maximise and objective in caps and len(second) < 2:
        spare = [name for name in ("params", "macs") if name in stages[0].columns and name != objective]
        picks = largest(stages, objective, caps, (second or spare or [objective])[0])
    if picks is None:  # also where rounding hid the only chains within the caps
        picks = _solve(stages, caps, objective, maximise, gap)
    if picks is None:
        raise infeasible(stages, caps)
    found: dict[str, object] = {name: _sum(stages, picks, name) for name in [*shown, *caps, objective]}
    for number, (rows, at) in enumerate(zip(stages, picks, strict=True), 1):
        found[f"row_{number}"] = rows.index[at]
    return pd.Series(found, dtype=object)


def feasible_range(tables: Sequence[pd.DataFrame], column: str) -> tuple[float, float]:
    """Sum the cheapest and the dearest chain.

    Args:
        tables: one table a stage, as for `exact_front`.
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


def infeasible(stages: Sequence[Rows], caps: Mapping[str, float]) -> SettingError:
    """Word the error of caps that no chain keeps.

    Args:
        stages: the rows of each stage.
        caps: largest allowed sum by column name.

    Returns:
        The error, naming the smallest feasible value of every capped column.
    """
    least = {name: remaining(stages, name)[0].min() for name in caps}
    legal = ", ".join(f"{name} at least {value:.15g}" for name, value in least.items())
    if all(least[name] <= cap for name, cap in caps.items()):  # each alone would do, together they do not
        for name in caps:
            rest = {other: cap for other, cap in caps.items() if other != name}
            picks = _solve(stages, rest, name, False)
            if picks is not None:
                under = " and ".join(f"{other} <= {cap:.15g}" for other, cap in rest.items())
                legal += f"; with {under} {name} at least {_sum(stages, picks, name):.15g}"
    return SettingError("caps", dict(caps), legal, "raise the budget")


def _solve(
    stages: Sequence[Rows], caps: Mapping[str, float], objective: str, maximise: bool, gap: float = 0.0
) -> list[int] | None:
    """Return the position of each stage's row, or None when the caps cannot be kept."""
    from scipy import sparse
    from scipy.optimize import Bounds, LinearConstraint, milp

    sign = -1.0 if maximise else 1.0
    kept = [_useful(rows, caps, objective, maximise) for rows in stages]
    offsets = np.cumsum([0, *(len(keep) for keep in kept)])
    value = np.concatenate([rows.columns[objective][keep] for rows, keep in zip(stages, kept, strict=True)])
    # HiGHS stops at an absolute gap of 1e-6: large coefficients make that gap harmless
    weights = sign * value * (1e4 / max(float(np.abs(value).max()), np.finfo(float).tiny))
    rules, low, high = [], [], []
    for number in range(len(stages)):  # one row a stage
        rules.append(_line(offsets[-1], range(offsets[number], offsets[number + 1])))
        low.append(1.0)
        high.append(1.0)
    for number in range(len(stages) - 1):  # as many leave with a width as enter with it
        leave, enter = stages[number].leave[kept[number]], stages[number + 1].enter[kept[number + 1]]
        for width in np.union1d(leave, enter):
            line = _line(offsets[-1], offsets[number] + np.flatnonzero(leave == width))
            line[offsets[number + 1] + np.flatnonzero(enter == width)] -= 1.0
            rules.append(line)
            low.append(0.0)
            high.append(0.0)
    for name, cap in caps.items():
        cost = np.concatenate([rows.columns[name][keep] for rows, keep in zip(stages, kept, strict=True)])
        scale = 1e3 / max(float(np.abs(cost).max()), abs(cap), np.finfo(float).tiny)
        rules.append(cost * scale)
        low.append(-np.inf)
        high.append(cap * scale)
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
        if all(_sum(stages, picks, name) <= cap for name, cap in caps.items()):
            return picks
        # within HiGHS' tolerance of 1e-6 but above the cap: forbid this chain and look again
        rules.append(_line(offsets[-1], offsets[:-1] + at))
        low.append(-np.inf)
        high.append(len(stages) - 1.0)


def _sum(stages: Sequence[Rows], picks: Sequence[int], name: str) -> int | float:
    return sum(rows.columns[name][at].item() for rows, at in zip(stages, picks, strict=True))


def _line(length: int, ones: range | np.ndarray) -> np.ndarray:
    line = np.zeros(length)
    line[np.asarray(ones, dtype=np.int64)] = 1.0
    return line


def _useful(rows: Rows, caps: Mapping[str, float], objective: str, maximise: bool) -> np.ndarray:
    """Return the rows that no row of the same widths beats in the objective and every capped column."""
    keys = [rows.enter, rows.leave]
    wanted = [name for name in caps if name != objective]
    sign = -1 if maximise else 1
    if maximise and objective in caps:  # both more and less of it may be wanted: only equals compare
        keys.append(rows.columns[objective])
    points = np.stack([sign * rows.columns[objective], *(rows.columns[name] for name in wanted)], axis=1)
    kept = []
    for at in groups(*keys):
        at = at[np.lexsort((rows.rank[at], *points[at].T[::-1]))]
        first = 0
        while first < len(at):  # each survivor removes all it beats; the earlier of two equals stays
            better = (points[at] < points[at[first]]).any(axis=1)
            better[: first + 1] = True
            at = at[better]
            first += 1
        kept.append(at)
    return np.sort(np.concatenate(kept))
