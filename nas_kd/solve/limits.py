"""Budgets as limits on sums, and the error if no chain is within them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Real

import numpy as np

from nas_kd.errors import SettingError
from nas_kd.solve.tables import Rows, remaining

Bounds = Mapping[str, "float | tuple[float | None, float | None]"]  # upper bound of the sum, or lower and upper bound
Limits = Mapping[str, tuple[float, float]]  # infinite if unbounded
Solve = Callable[[Sequence[Rows], Limits, str, bool], "list[int] | None"]


def limits_of(bounds: Bounds) -> dict[str, tuple[float, float]]:
    """Return lower and upper bound of each column.

    Args:
        bounds: upper bound of the sum by column name, or a pair of lower and upper bound.

    Raises:
        SettingError: a lower bound is above its upper bound, or one is not a number.
    """
    limits = {}
    for name, bound in bounds.items():
        ends = tuple(bound) if isinstance(bound, tuple | list) else (None, bound)
        numbers = [end for end in ends if end is not None]
        if len(ends) != 2 or not all(isinstance(end, Real) and not np.isnan(end) for end in numbers):
            expected = "an upper bound, or a pair of lower and upper bound, either of them None"
            raise SettingError(f"bounds.{name}", bound, expected, f"write {{{name!r}: 5e6}}, without a unit or %")
        low, high = ends
        pair = -np.inf if low is None else float(low), np.inf if high is None else float(high)
        if not pair[0] <= pair[1]:
            raise SettingError(f"bounds.{name}", bound, "a lower bound of at most the upper bound", "swap them")
        limits[name] = pair
    return limits


def infeasible(stages: Sequence[Rows], limits: Limits, solve: Solve) -> SettingError:
    """Return the error of limits that no chain keeps, with the feasible values of every limited column.

    These are given for each column alone and, if that is not enough, within the other limits.

    Args:
        limits: lower and upper bound of the sum by column.
        solve: finds the chain with the best sum of a column within limits, or None.
    """
    least = {name: remaining(stages, name)[0].min() for name in limits}
    most = {name: remaining(stages, name, largest=True)[0].max() for name in limits}
    parts = [f"{name} at least {least[name]:.15g}" for name, (_, high) in limits.items() if high < np.inf]
    parts += [f"{name} at most {most[name]:.15g}" for name, (low, _) in limits.items() if low > -np.inf]
    expected = ", ".join(parts)
    if all(least[name] <= high and most[name] >= low for name, (low, high) in limits.items()):
        # each limit alone is feasible, but not all together
        for name, (low, high) in limits.items():
            rest = {other: limit for other, limit in limits.items() if other != name}
            others = " and ".join(_inequality(other, *limit) for other, limit in rest.items())
            others = f"with {others} " if others else ""
            # within the column's own other limit, so that the value lies on the right side of a range
            for bound, own, word in ((high, (low, np.inf), "least"), (low, (-np.inf, high), "most")):
                if np.isfinite(bound):
                    picks = solve(stages, rest | {name: own}, name, word == "most")
                    if picks is not None:
                        values = [rows.columns[name][at].item() for rows, at in zip(stages, picks, strict=True)]
                        expected += f"; {others}{name} at {word} {sum(values):.15g}"
    given = {name: high if low == -np.inf else (low, high) for name, (low, high) in limits.items()}
    return SettingError("bounds", given, expected, "widen the budget")


def _inequality(name: str, low: float, high: float) -> str:
    parts = [f"{low:.15g} <= "] * (low > -np.inf) + [name] + [f" <= {high:.15g}"] * (high < np.inf)
    return "".join(parts)
