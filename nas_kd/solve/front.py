"""The exact front of an additive score: the best chain of rows for every budget at once.

A table's rows that no other row of the same input and output width beats are few, and a chain's prefix that
another prefix ending in the same width beats can never win. Folding the stages from first to last with the
output width as state is therefore exact and takes milliseconds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from nas_kd.errors import SettingError
from nas_kd.solve.limits import infeasible, limits_of
from nas_kd.solve.tables import Rows, groups, no_chain, read_tables, remaining


def exact_front(
    tables: Sequence[pd.DataFrame], budget: str = "macs", *, caps: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """Find the chains that no other chain beats in both the summed score and the summed cost.

    Args:
        tables: one table per stage with the columns score (lower is better), macs and params, and in_width and
            out_width where stages are coupled: a chain needs in_width equal to the out_width before it.
        budget: name of the cost column; any additive column may be one.
        caps: largest allowed sum of a column. The budget and one other column may be capped; the other one
            is carried through the search, so the front stays exact. For more caps use `best`.

    Returns:
        The whole front: budget, score, the other one of macs and params, row_1 ... row_S (labels of the
        tables' rows); rising in the budget, scores strictly falling. Of equal chains the one with the fewest
        params is kept (fewest macs when the budget is params), then the one with the lowest labels. Scores
        are summed from the first stage to the last. ``attrs["nan_rows"]`` counts the rows that were dropped
        because they held NaN or infinity.

    Raises:
        SettingError: a table is not usable, no chain exists, or no chain is within the caps.
    """
    others = [name for name in ("params", "macs") if name != budget]
    between = limits_of(caps or {})
    if ranged := [name for name, (low, _) in between.items() if low > -np.inf]:
        expected = "the largest sum of a column: a front begins at the smallest"
        raise SettingError(f"caps.{ranged[0]}", (caps or {})[ranged[0]], expected, "use nas_kd.solve.best for ranges")
    limits = {name: high for name, (_, high) in between.items()}
    carried = [name for name in limits if name != budget]
    if len(carried) > 1:
        expected = f"{budget} and one other column"
        raise SettingError("caps", sorted(limits), expected, "use nas_kd.solve.best for more caps")
    stages, nan_rows = read_tables(tables, list(dict.fromkeys(["score", budget, *others, *carried])))
    stages = [rows.take(_surviving(rows, [budget, *carried], others[0])) for rows in stages]
    chains = _fold(stages, budget, carried[0] if carried else None, others[0], limits)
    front = pd.DataFrame({budget: _total(stages, chains, budget), "score": _total(stages, chains, "score")})
    for name in others:
        front[name] = _total(stages, chains, name)
    for number, (rows, picks) in enumerate(zip(stages, chains.T, strict=True), 1):
        front[f"row_{number}"] = rows.index.take(picks)
    front.attrs["nan_rows"] = nan_rows
    return front


def pruned(tables: Sequence[pd.DataFrame], budgets: Sequence[str] = ("macs",)) -> list[pd.Index]:
    """Name the rows that can be on a front.

    Args:
        tables: one table per stage, as for `exact_front`.
        budgets: one or two cost columns.

    Returns:
        For each stage the labels of the rows that no row of the same in_width and out_width beats, from the
        cheapest to the dearest in the first budget.

    Raises:
        SettingError: a table is not usable, or there are more than two budgets.
    """
    if not 1 <= len(budgets) <= 2:
        raise SettingError("budgets", tuple(budgets), "one or two column names")
    tie = "params" if "params" not in budgets else budgets[0]
    stages, _ = read_tables(tables, list(dict.fromkeys(["score", *budgets, tie])))
    kept = []
    for rows in stages:
        widths = [rows.columns[name] for name in ("in_width", "out_width") if name in rows.columns]
        keep = _surviving(rows, budgets, tie, widths)
        order = np.lexsort((rows.rank[keep], rows.columns["score"][keep], rows.columns[budgets[0]][keep]))
        kept.append(rows.index[keep[order]])
    return kept


def _surviving(rows: Rows, budgets: Sequence[str], tie: str, widths: Sequence[np.ndarray] | None = None) -> np.ndarray:
    """Return the rows of a stage that no row of the same widths beats, in the order of the table."""
    cost = rows.columns[budgets[0]]
    score = rows.columns["score"]
    ties = rows.columns[tie]
    second = rows.columns[budgets[1]] if len(budgets) > 1 else None
    kept = []
    for at in groups(*(widths or (rows.enter, rows.leave))):
        extra = None if second is None else second[at]
        kept.append(at[_undominated(cost[at], score[at], ties[at], rows.rank[at], extra)])
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
        grown = {name: sums[name][parent] + rows.columns[name][row] for name in names}
        leave = rows.leave[row]
        allowed = np.ones(len(row), dtype=bool)
        for name, limit in limits.items():
            room = limit + _slack(stages, number, name, limit)
            allowed &= grown[name] + least[name][number + 1][leave] <= room
        if not allowed.any():
            raise _infeasible(stages, limits)
        order = rank[parent] * (int(rows.rank.max()) + 1) + rows.rank[row]  # the first stage's label decides
        kept = []
        open_ = np.flatnonzero(allowed)
        for group in groups(leave[open_]):
            at = open_[group]
            extra = None
            if carried and most:
                # below this much the cap cannot bind any more, whatever follows: such prefixes are alike
                limit = limits[carried]
                floor = limit - most[number + 1][leave[at[0]]] - _slack(stages, number, carried, limit)
                extra = np.maximum(grown[carried][at], floor)
            cost, score, ties = (grown[name][at] for name in (budget, "score", tie))
            kept.append(at[_undominated(cost, score, ties, order[at], extra)])
        keep = np.concatenate(kept)
        sums = {name: values[keep] for name, values in grown.items()}
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
    """Room for rounding in bounds on sums that are still to come; whole numbers and full chains need none."""
    whole = all(rows.columns[name].dtype.kind == "i" for rows in stages)
    return 0.0 if whole or number == len(stages) - 1 else 1e-9 * abs(limit)


def _undominated(
    cost: np.ndarray, score: np.ndarray, tie: np.ndarray, rank: np.ndarray, extra: np.ndarray | None = None
) -> np.ndarray:
    """Return what no other beats in cost and score (and extra); of equals the first by tie, then rank."""
    if extra is not None and (extra != extra[0]).any():
        return _staircase(np.lexsort((rank, tie, score, cost)), score, extra)
    order = np.argsort(cost)  # one quick sort drops nearly all; the exact order is for the few that stay
    order = order[score[order] <= np.minimum.accumulate(score[order])]
    order = order[np.lexsort((score[order], cost[order]))]
    order = order[score[order] <= np.minimum.accumulate(score[order])]
    # what is left never rises in score; of equal scores only the cheapest stay, and those are ties
    first = np.flatnonzero(np.diff(score[order], prepend=np.inf))
    lengths = np.diff(np.append(first, len(order)))
    order = order[cost[order] == np.repeat(cost[order[first]], lengths)]
    if len(order) == len(first):
        return order
    order = order[np.lexsort((rank[order], tie[order], cost[order]))]
    return order[np.diff(cost[order], prepend=np.nan) != 0]


def _staircase(order: np.ndarray, score: np.ndarray, extra: np.ndarray) -> np.ndarray:
    """Return what no earlier one beats in both score and extra, keeping the undominated steps so far."""
    scores: list[float] = []  # rising
    extras: list[float] = []  # falling
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
    return infeasible(stages, {name: (-np.inf, cap) for name, cap in limits.items()}, solve)
