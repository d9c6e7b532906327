"""The k best chains, optionally each sufficiently different from the ones before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from heapq import heappop, heappush
from math import ceil
from numbers import Integral
from typing import NamedTuple

import numpy as np
import pandas as pd

from nas_kd.errors import SettingError
from nas_kd.solve.limits import Bounds, Limits, infeasible, limits_of
from nas_kd.solve.milp import chain_sum, solve, useful
from nas_kd.solve.tables import Rows, groups, no_chain, read_tables, remaining

MAX_POPS = 100_000  # prefixes of chains to visit before switching to integer programs
ENGINES = ("chains", "milp")


def k_best(
    tables: Sequence[pd.DataFrame],
    k: int,
    *,
    bounds: Bounds | None = None,
    different: float = 0.0,
    engine: str = "chains",
) -> pd.DataFrame:
    """Find the k chains with the best scores within budgets.

    Args:
        tables: one table per stage, as for `exact_front`.
        k: number of chains.
        bounds: budgets, as for `nas_kd.solve.best`.
        different: share of the stages in which a chain must differ from every better one in the result,
            0 to 1: ``0.2`` rounds up to one of five stages and two of six. 0 only excludes equal chains.
        engine: ``chains`` is a best-first search over prefixes of chains; if that takes long, and
            with ``milp``, integer programs with a cut for every chain found are used.

    Returns:
        The chains, best first: score, macs, params and bounded columns, row_1 ... row_S (labels of the tables'
        rows). Fewer than ``k`` if there are no more; equal scores are in any order.

    Raises:
        SettingError: a setting or table is invalid, no chain exists, or none is within the budgets.

    Source:
        Each chain is the best one that differs from those before it, as in Puzzle (Bercovich et al. 2024),
        section 4.3.
    """
    if not isinstance(k, Integral) or k < 1:
        raise SettingError("k", k, "an integer of at least 1")
    if not 0 <= different <= 1:
        raise SettingError("different", different, "a share of the stages, 0 to 1", "use different=0.2")
    if engine not in ENGINES:
        raise SettingError("engine", engine, " or ".join(ENGINES))
    limits = limits_of(bounds or {})
    shown = [name for name in ("macs", "params") if all(name in table for table in tables)]
    names = list(dict.fromkeys(["score", *shown, *limits]))
    stages, _ = read_tables(tables, names)
    if not np.isfinite(remaining(stages, "score")[0]).any():
        raise no_chain(stages)
    min_different = max(1, ceil(different * len(stages) - 1e-9))
    found: list[tuple[int, ...]] = []
    if engine == "chains":
        kept = [useful(rows, limits, "score", False, k) for rows in stages]
        small = [rows.take(keep) for rows, keep in zip(stages, kept, strict=True)]
        for chain in _best_first(small, limits, min_different, k):
            found.append(tuple(int(keep[at]) for keep, at in zip(kept, chain, strict=True)))
    while len(found) < k:  # the remaining ones, or none
        picks = solve(stages, limits, "score", excluded=found, shared=len(stages) - min_different)
        if picks is None:
            break
        found.append(tuple(picks))
    if not found:
        raise infeasible(stages, limits, solve)
    frame = pd.DataFrame({name: [chain_sum(stages, chain, name) for chain in found] for name in names})
    for number, rows in enumerate(stages, 1):
        frame[f"row_{number}"] = rows.index.take([chain[number - 1] for chain in found])
    return frame


class _Node(NamedTuple):
    """The continuations of a prefix by one row, from the best bound on."""

    chain: tuple[int, ...]  # rows so far
    score: np.ndarray  # (N,) of each continuation
    sums: Mapping[str, np.ndarray]
    bound: np.ndarray  # (N,) lower bound of the score of every complete chain with this prefix
    row: np.ndarray  # (N,)


def _best_first(stages: Sequence[Rows], limits: Limits, min_different: int, k: int) -> Iterator[tuple[int, ...]]:
    """Yield chains from the best on, each different from the previous ones in ``min_different`` rows.

    Prefixes are visited in the order of their bounds: the score so far plus that of the best suffix that keeps each
    limit separately. It ends after `MAX_POPS` prefixes.
    """
    bounds = _Bounds(stages, limits)
    heap: list[tuple[float, int, int, _Node, int]] = []
    count = 0

    def push(node: _Node, at: int) -> None:
        nonlocal count
        if at < len(node.row):
            count += 1  # among equals the deeper first, then the earlier
            heappush(heap, (float(node.bound[at]), -len(node.chain), count, node, at))

    push(bounds.continued((), 0.0, dict.fromkeys(limits, 0.0)), 0)
    chosen = np.zeros((0, len(stages)), dtype=np.int64)
    for _ in range(MAX_POPS):
        if not heap:
            return
        _, _, _, node, at = heappop(heap)
        push(node, at + 1)
        chain = (*node.chain, int(node.row[at]))
        shared = (chosen[:, : len(chain)] == chain).sum(axis=1)
        if len(chosen) and shared.max() > len(stages) - min_different:
            continue
        if len(chain) == len(stages):
            yield chain
            chosen = np.vstack([chosen, chain])
            if len(chosen) == k:
                return
        else:
            sums = {name: values[at].item() for name, values in node.sums.items()}
            push(bounds.continued(chain, float(node.score[at]), sums), 0)


class _Bounds:
    """Lower bounds of the scores of suffixes, given what a limit leaves for them."""

    def __init__(self, stages: Sequence[Rows], limits: Limits) -> None:
        self.stages = stages
        self.limits = limits
        # a lower bound is an upper bound of the negated column
        sides = [
            (name, sign, sign * bound)
            for name, pair in limits.items()
            for sign, bound in ((-1, pair[0]), (1, pair[1]))
            if np.isfinite(bound)
        ]
        self.sides = [(name, sign, bound, self._suffixes(name, sign)) for name, sign, bound in sides]
        self.least = remaining(stages, "score")
        self.entering = [
            {int(rows.enter[at[0]]): at for at in groups(rows.enter)} if len(rows.rank) else {} for rows in stages
        ]

    def _suffixes(self, name: str, sign: int) -> list[dict[int, tuple[np.ndarray, np.ndarray]]]:
        """Return the front of the suffixes by stage and width: ascending costs and descending scores."""
        after = {0: (np.zeros(1), np.zeros(1))}
        suffixes = [after]
        for rows in reversed(self.stages):
            before = {}
            for at in groups(rows.enter):
                costs = []
                scores = []
                for one in groups(rows.leave[at]):
                    width = int(rows.leave[at[one[0]]])
                    if width in after:
                        picks = at[one]
                        costs.append((sign * rows.columns[name][picks, None] + after[width][0]).ravel())
                        scores.append((rows.columns["score"][picks, None] + after[width][1]).ravel())
                if costs:
                    before[int(rows.enter[at[0]])] = _front(np.concatenate(costs), np.concatenate(scores))
            after = before
            suffixes.insert(0, after)
        return suffixes

    def continued(self, chain: tuple[int, ...], score: float, sums: Mapping[str, float]) -> _Node:
        """Return all rows that can follow a prefix, from the best bound on."""
        depth = len(chain)
        rows = self.stages[depth]
        width = int(self.stages[depth - 1].leave[chain[-1]]) if depth else 0
        at = self.entering[depth].get(width, np.zeros(0, dtype=np.int64))
        scores = score + rows.columns["score"][at]
        sums_after = {name: total + rows.columns[name][at] for name, total in sums.items()}
        rest = self.least[depth + 1][rows.leave[at]]
        for name, sign, limit, suffixes in self.sides:
            # rounding of partial sums must not drop a chain; complete chains need no tolerance
            left = limit - sign * sums_after[name] + (1e-9 * abs(limit) if depth + 1 < len(self.stages) else 0.0)
            for leave in np.unique(rows.leave[at]):
                here = rows.leave[at] == leave
                front = suffixes[depth + 1].get(int(leave))
                if front is None:
                    rest[here] = np.inf
                    continue
                place = np.searchsorted(front[0], left[here], side="right") - 1
                rest[here] = np.maximum(rest[here], np.where(place >= 0, front[1][place], np.inf))
        bound = scores + rest
        if depth + 1 < len(self.stages):  # a bound rounded up could put a worse chain first
            bound = bound - 1e-12 * (np.abs(scores) + np.abs(np.where(np.isfinite(rest), rest, 0.0)))
        order = np.argsort(bound, kind="stable")
        order = order[np.isfinite(bound[order])]
        return _Node(
            chain, scores[order], {name: values[order] for name, values in sums_after.items()}, bound[order], at[order]
        )


def _front(cost: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.lexsort((score, cost))
    order = order[score[order] < np.minimum.accumulate(np.append(np.inf, score[order]))[:-1]]
    return cost[order], score[order]
