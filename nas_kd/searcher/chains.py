"""Chains of rated candidates as points of a search, and the best of them to start with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nas_kd.errors import SettingError
from nas_kd.searcher.budget import Budget
from nas_kd.searcher.variables import Point, SearchVariables
from nas_kd.solve import exact_front, k_best
from nas_kd.solve.shortlist import shortlists
from nas_kd.space import Arch, ElasticSpace
from nas_kd.space.rows import arch_of


@dataclass(frozen=True)
class Candidates:
    """Points of one index per stage, into the choices that the ratings prefer.

    Args:
        resolution: input size that the tables were rated at.
        lists: the choices of each stage.
    """

    space: ElasticSpace
    resolution: int
    lists: Sequence[Sequence[int]]

    @classmethod
    def preferred(
        cls, space: ElasticSpace, resolution: int, coded: Sequence[pd.DataFrame], budget: Budget
    ) -> Candidates:
        """Take the choices on the stages' fronts."""
        costs = ("macs", "params") if "params" in budget.upper else ("macs",)
        return cls(space, resolution, shortlists(coded, costs))

    @property
    def sizes(self) -> list[int]:
        """Number of choices of each stage."""
        return [len(choices) for choices in self.lists]

    @property
    def labels(self) -> list[str]:
        """Names of the stages' choices."""
        return [f"stage{number}.candidate" for number in range(1, len(self.lists) + 1)]

    def decode(self, point: Sequence[int]) -> Arch:
        """Return the arch of a point."""
        choices = [listed[i] for listed, i in zip(self.lists, point, strict=True)]
        return arch_of(self.space, choices, self.resolution)

    def canonical(self, point: Sequence[int]) -> Point:
        """Return the point itself: no two points are the same arch."""
        return tuple(point)

    def point_of(self, choices: Sequence[int]) -> Point | None:
        """Return the point of one choice per stage; None where the lists lack it."""
        found = all(choice in listed for choice, listed in zip(choices, self.lists, strict=True))
        return tuple(listed.index(c) for c, listed in zip(choices, self.lists, strict=True)) if found else None

    def simple(self, budget: Budget) -> list[Point]:
        """Return nothing: the lists may lack the space's simple archs."""
        return []


@dataclass(frozen=True)
class Dimensions(SearchVariables):
    """Points of one index per dimension; chains of candidates are among them.

    Args:
        resolution: input size that the tables were rated at.
    """

    resolution: int

    def point_of(self, choices: Sequence[int]) -> Point:
        """Return the point of one choice per stage."""
        return self.encode(arch_of(self.space, choices, self.resolution))

    def simple(self, budget: Budget) -> list[Point]:
        """Return the space's own simple archs within the budget, which a search must beat."""
        return [self.encode(arch) for arch in self.space.simple_archs(budget.affords, budget.cost).values()]


def warm_choices(
    exact: pd.DataFrame, coded: Sequence[pd.DataFrame], budget: Budget, count: int, spread: bool = False
) -> list[list[int]]:
    """Return the ``count`` best-scored chains within the budget, best first, one choice per stage: the exact front's.

    ``spread`` takes them from all over that front, the smallest and the best-scored among them. Where the
    budget has a smallest cost or a latency, of which the front knows nothing, they are the best chains
    that differ in a fifth of their stages from each other; latencies of rows only estimate those of networks.
    """
    upper = budget.upper
    limits = budget.limits
    if timed := budget.max_latency_ms is not None and all("latency_ms" in table for table in coded):
        limits = limits | {"latency_ms": (None, budget.max_latency_ms)}
    if budget.lower or timed:
        try:
            within = k_best(coded, count, bounds=limits, different=0.2)
        except SettingError:  # no estimate is within the latency; measurements decide
            return []
    elif "params" in upper:  # a front in macs alone misses chains that are best under a bound on params
        within = exact_front(coded, bounds=upper)
    else:
        within = exact[exact["macs"] <= upper.get("macs", math.inf)]
    within = within.sort_values("score")
    if spread and len(within) > count:
        within = within.iloc[np.linspace(0, len(within) - 1, count).round().astype(int)]
    within = within.head(count)
    return [
        [int(table.loc[row[f"row_{stage}"], "choice"]) for stage, table in enumerate(coded, 1)]
        for _, row in within.iterrows()
    ]
