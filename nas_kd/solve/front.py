"""The exact front of an additive score: the best chain of rows for every budget.

Few rows of a table are not dominated by another row of the same input and output width, and a prefix of a chain that
is dominated by another prefix with the same output width can never win. Dynamic programming over the stages with the
output width as state is therefore exact and takes milliseconds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from nas_kd.config.kinds import checked
from nas_kd.errors import SettingError
from nas_kd.solve.limits import infeasible, limits_of
from nas_kd.solve.tables import Rows, groups, no_chain, read_tables, remaining


@checked
def exact_front(
    tables: Sequence[pd.DataFrame], budget: str = "macs", *, bounds: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """Find the chains that are not dominated in summed score and summed cost.

    Args:
        tables: one table per stage with the columns score (lower is better), macs and params, and in_width and
            out_width where stages are coupled: a chain needs in_width equal to the out_width before it.
        budget: name of the cost column; any additive column.
        bounds: upper bound of the sum, by column: of the budget and one other column, which
            is carried through the search, so that the front stays exact. For more bounds use `best`.

    Returns:
        The whole front: budget, score, the other one of macs and params, row_1 ... row_S (labels of the
        tables' rows); rising in the budget, with strictly falling scores. Of equal chains the one with the fewest
        params is kept (fewest macs if the budget is params), then the one with the lowest labels. Scores
        are summed from the first stage to the last. ``attrs["nan_rows"]`` is the number of rows dropped
        for NaN or infinity.

    Raises:
        SettingError: a table is invalid, no chain exists, or no chain is within the bounds.
    """
    others = [name for name in ("params", "macs") if name != budget]
    between = limits_of(bounds or {})
    if ranged := [name for name, (low, _) in between.items() if low > -np.inf]:
        expected = "an upper bound: a front starts at the smallest sum"
        raise SettingError(
            f"bounds.{ranged[0]}", (bounds or {})[ranged[0]], expected, "use nas_kd.solve.best for ranges"
        )
    limits = {name: high for name, (_, high) in between.items()}
    carried = [name for name in limits if name != budget]
    if len(carried) > 1:
        expected = f"{budget} and one other column"
        raise SettingError("bounds", sorted(limits), expected, "use nas_kd.solve.best for more bounds")
    stages, nan_rows = read_tables(tables, list(dict.fromkeys(["score", budget, *others, *carried])))
    stages = [rows.take(_nondominated_rows(rows, [budget, *carried], others[0])) for rows in stages]
    chains = _fold(stages, budget, carried[0] if carried else None, others[0], limits)
    front = pd.DataFrame({budget: _total(stages, chains, budget), "score": _total(stages, chains, "score")})
    for name in others:
        front[name] = _total(stages, chains, name)
    for number, (rows, picks) in enumerate(zip(stages, chains.T, strict=True), 1):
        front[f"row_{number}"] = rows.index.take(picks)
    front.attrs["nan_rows"] = nan_rows
    return front


def pruned(tables: Sequence[pd.DataFrame], budgets: Sequence[str] = ("macs",)) -> list[pd.Index]:
    """Return the rows that can be on a front.

    Args:
        tables: one table per stage, as for `exact_front`.
        budgets: one or two cost columns.

    Returns:
        For each stage the labels of the rows that no row of the same in_width and out_width dominates, in ascending
        order of the first budget.

    Raises:
        SettingError: a table is invalid, or there are more than two budgets.
    """
    if not 1 <= len(budgets) <= 2:
        raise SettingError("budgets", tuple(budgets), "one or two column names")
    tie = "params" if "params" not in budgets else budgets[0]
    stages, _ = read_tables(tables, list(dict.fromkeys(["score", *budgets, tie])))
    kept = []
    for rows in stages:
        widths = [rows.columns[name] for name in ("in_width", "out_width") if name in rows.columns]
        keep = _nondominated_rows(rows, budgets, tie, widths)
        order = np.lexsort((rows.rank[keep], rows.columns["score"][keep], rows.columns[budgets[0]][keep]))
        kept.append(rows.index[keep[order]])
    return kept


def _nondominated_rows(
    rows: Rows, budgets: Sequence[str], tie: str, widths: Sequence[np.ndarray] | None = None
) -> np.ndarray:
    """Return the rows of a stage that no row of the same widths dominates, in the order of the table."""
    cost = rows.columns[budgets[0]]
    score = rows.columns["score"]
    ties = rows.columns[tie]
    second = rows.columns[budgets[1]] if len(budgets) > 1 else None
    kept = []
    for at in groups(*(widths or (rows.enter, rows.leave))):
        extra = None if second is None else second[at]
        kept.append(at[_nondominated(cost[at], score[at], ties[at], rows.rank[at], extra)])
    return np.sort(np.concatenate(kept))


def _fold(stages: list[Rows], budget: str, carried: str | None, tie: str, limits: Mapping[str, float]) -> np.ndarray:
    """Return the chains of the front, cheapest first, as (N, S) positions in the stages."""
    names = list(dict.fromkeys([budget, "score", tie, *limits]))
    least = {name: remaining(stages, name) for name in limits}
    most = remaining(stages, carried, largest=True) if carried else None
    sums = {name: np.zeros(1, dtype=stages[0].columns[name].dtype) for name in names}
    rank = np.zeros(1, dtype=np.int64)
    state = np.zeros(1, dtype=np.int64)
    history = []
    for number, rows in enumerate(stages):
        pairs = [_cross(np.flatnonzero(state == rows.enter[at[0]]), at) for at in groups(rows.enter)]
        parent = np.concatenate([left for left, _ in pairs])
        row = np.concatenate([right for _, right in pairs])
        sums_after = {name: sums[name][parent] + rows.columns[name][row] for name in names}
        leave = rows.leave[row]
        allowed = np.ones(len(row), dtype=bool)
        for name, limit in limits.items():
            upper = limit + _slack(stages, number, name, limit)
            allowed &= sums_after[name] + least[name][number + 1][leave] <= upper
        if not allowed.any():
            raise _infeasible(stages, limits)
        order = rank[parent] * (int(rows.rank.max()) + 1) + rows.rank[row]  # labels of earlier stages decide first
        kept = []
        open_ = np.flatnonzero(allowed)
        for group in groups(leave[open_]):
            at = open_[group]
            extra = None
            if carried and most:
                # below this value the bound holds whatever follows: such prefixes are equivalent
                limit = limits[carried]
                relevant = limit - most[number + 1][leave[at[0]]] - _slack(stages, number, carried, limit)
                extra = np.maximum(sums_after[carried][at], relevant)
            cost, score, ties = (sums_after[name][at] for name in (budget, "score", tie))
            kept.append(at[_nondominated(cost, score, ties, order[at], extra)])
        keep = np.concatenate(kept)
        sums = {name: values[keep] for name, values in sums_after.items()}
        state = leave[keep]
        rank = np.empty(len(keep), dtype=np.int64)
        rank[np.argsort(order[keep])] = np.arange(len(keep))
        history.append((parent[keep], row[keep]))
    at = np.argsort(sums[budget], kind="stable")
    picks = []
    for parent, row in reversed(history):
        picks.append(row[at])
        at = parent[at]
    return np.stack(picks[::-1], axis=1)


def _cross(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.repeat(left, len(right)), np.tile(right, len(left))


def _slack(stages: Sequence[Rows], number: int, name: str, limit: float) -> float:
    """Tolerance for rounding in bounds on partial sums; integers and complete chains need none."""
    whole = all(rows.columns[name].dtype.kind == "i" for rows in stages)
    return 0.0 if whole or number == len(stages) - 1 else 1e-9 * abs(limit)


def _nondominated(
    cost: np.ndarray, score: np.ndarray, tie: np.ndarray, rank: np.ndarray, extra: np.ndarray | None = None
) -> np.ndarray:
    """Return the entries not dominated in cost and score (and extra); of equal ones the first by tie, then rank."""
    if extra is not None and (extra != extra[0]).any():
        return _staircase(np.lexsort((rank, tie, score, cost)), score, extra)
    order = np.argsort(cost)  # a single sort drops nearly all; the exact order is needed only for the few that are left
    order = order[score[order] <= np.minimum.accumulate(score[order])]
    order = order[np.lexsort((score[order], cost[order]))]
    order = order[score[order] <= np.minimum.accumulate(score[order])]
    # scores now never rise; of equal scores only the cheapest are kept, which are ties
    first = np.flatnonzero(np.diff(score[order], prepend=np.inf))
    lengths = np.diff(np.append(first, len(order)))
    order = order[cost[order] == np.repeat(cost[order[first]], lengths)]
    if len(order) == len(first):
        return order
    order = order[np.lexsort((rank[order], tie[order], cost[order]))]
    return order[np.diff(cost[order], prepend=np.nan) != 0]


def _staircase(order: np.ndarray, score: np.ndarray, extra: np.ndarray) -> np.ndarray:
    """Return the entries not dominated by an earlier one in score and extra, with a staircase of those so far."""
    scores: list[float] = []  # ascending
    extras: list[float] = []  # descending
    kept = []
    for at, s, e in zip(order.tolist(), score[order].tolist(), extra[order].tolist(), strict=True):
        place = bisect_right(scores, s)
        if place and extras[place - 1] <= e:
            continue
        if place and scores[place - 1] == s:
            place -= 1
        end = place
        while end < len(extras) and extras[end] >= e:
            end += 1
        scores[place:end], extras[place:end] = [s], [e]
        kept.append(at)
    return np.array(kept, dtype=np.int64)


def _total(stages: Sequence[Rows], chains: np.ndarray, name: str) -> np.ndarray:
    total = stages[0].columns[name][chains[:, 0]]
    for rows, picks in zip(stages[1:], chains.T[1:], strict=True):
        total = total + rows.columns[name][picks]
    return total


def _infeasible(stages: Sequence[Rows], limits: Mapping[str, float]) -> SettingError:
    from nas_kd.solve.milp import solve

    if not np.isfinite(remaining(stages, "score")[0]).any():
        return no_chain(stages)
    return infeasible(stages, {name: (-np.inf, high) for name, high in limits.items()}, solve)
