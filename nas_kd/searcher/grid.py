"""Settings for the whole network: all variables of a kind move together."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import numpy as np

from nas_kd.searcher.variables import Point, SearchVariables

GRID = 2_000  # points of a grid at most; kinds with many levels are thinned out above


def coarse_grid(
    variables: SearchVariables, affordable: Callable[[Point], bool], cost: Callable[[Point], float], most: int
) -> list[Point]:
    """Return settings for the whole network within a budget.

    Args:
        affordable: whether a point is within the budget.
        most: maximum number of points.

    Returns:
        Distinct canonical points in ascending order of cost; where there are more than ``most``, evenly spaced ones,
        with both ends.
    """
    kinds = list(dict.fromkeys(variable.kind for variable in variables.variables))
    levels = {
        kind: max(len(variable.values) for variable in variables.variables if variable.kind == kind) for kind in kinds
    }
    while math.prod(levels.values()) > GRID:
        levels[max(levels, key=lambda kind: levels[kind])] -= 1
    found: dict[Point, float] = {}
    for at in product(*(range(count) for count in levels.values())):
        level = {kind: i / max(1, levels[kind] - 1) for kind, i in zip(kinds, at, strict=True)}
        point = variables.canonical(
            [round(level[variable.kind] * (len(variable.values) - 1)) for variable in variables.variables]
        )
        if point not in found and affordable(point):
            found[point] = cost(point)
    ordered = sorted(found, key=lambda point: (found[point], point))
    if len(ordered) <= most:
        return ordered
    return [ordered[i] for i in np.unique(np.linspace(0, len(ordered) - 1, most).round().astype(int))]
