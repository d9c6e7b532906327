"""Budgets as limits on sums, and the error of those that no chain keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Real

import numpy as np

from nas_kd.errors import SettingError
from nas_kd.solve.tables import Rows, remaining

Caps = Mapping[str, "float | tuple[float | None, float | None]"]  # the largest sum, or smallest and largest
Limits = Mapping[str, tuple[float, float]]  # infinite where there is none
Solve = Callable[[Sequence[Rows], Limits, str, bool], "list[int] | None"]


def limits_of(caps: Caps) -> dict[str, tuple[float, float]]:
    """Read budgets.

    Args:
        caps: the largest allowed sum by column name, or a pair of the smallest and the largest.

    Returns:
        Smallest and largest by column name.

    Raises:
        SettingError: a smallest is above its largest, or one is no number.
    """
    limits = {}
    for name, cap in caps.items():
        ends = tuple(cap) if isinstance(cap, tuple | list) else (None, cap)
        numbers = [end for end in ends if end is not None]
        if len(ends) != 2 or not all(isinstance(end, Real) and not np.isnan(end) for end in numbers):
            expected = "a number, the largest sum, or a pair of the smallest and the largest, either of them None"
            raise SettingError(f"caps.{name}", cap, expected, f"write {{{name!r}: 5e6}}, with no share and no unit")
        low, high = ends
        pair = -np.inf if low is None else float(low), np.inf if high is None else float(high)
        if not pair[0] <= pair[1]:
            raise SettingError(f"caps.{name}", cap, "a smallest that is at most the largest", "swap them")
        limits[name] = pair
    return limits


def infeasible(stages: Sequence[Rows], limits: Limits, solve: Solve) -> SettingError:
    """Word the error of limits that no chain keeps.

    Args:
        stages: the rows of each stage.
        limits: smallest and largest allowed sum by column.
        solve: finds the chain with the best sum of a column within limits, None when there is none.

    Returns:
        The error, naming the feasible values of every limited column: by itself, and where that is not enough
        beside the other limits.
    """
    least = {name: remaining(stages, name)[0].min() for name in limits}
    most = {name: remaining(stages, name, largest=True)[0].max() for name in limits}
    told = [f"{name} at least {least[name]:.15g}" for name, (_, high) in limits.items() if high < np.inf]
    told += [f"{name} at most {most[name]:.15g}" for name, (low, _) in limits.items() if low > -np.inf]
    expected = ", ".join(told)
    if all(least[name] <= high and most[name] >= low for name, (low, high) in limits.items()):
        # each alone would do, together they do not
        for name, (low, high) in limits.items():
            rest = {other: limit for other, limit in limits.items() if other != name}
            under = " and ".join(_worded(other, *limit) for other, limit in rest.items())
            under = f"with {under} " if under else ""
            # inside its own other limit, so that a range is not told a value on its far side
            for bound, own, word in ((high, (low, np.inf), "least"), (low, (-np.inf, high), "most")):
                if np.isfinite(bound):
                    picks = solve(stages, rest | {name: own}, name, word == "most")
                    if picks is not None:
                        values = [rows.columns[name][at].item() for rows, at in zip(stages, picks, strict=True)]
                        expected += f"; {under}{name} at {word} {sum(values):.15g}"
    given = {name: high if low == -np.inf else (low, high) for name, (low, high) in limits.items()}
    return SettingError("caps", given, expected, "widen the budget")


def _worded(name: str, low: float, high: float) -> str:
    parts = [f"{low:.15g} <= "] * (low > -np.inf) + [name] + [f" <= {high:.15g}"] * (high < np.inf)
    return "".join(parts)
