"""NSGA-II over every dimension, by the accuracy of whole subnets and their cost.

Source: Deb et al. 2002; for supernets as in NSGANetV2 (Lu et al. 2020).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from nas_kd.searcher.grid import coarse_grid
from nas_kd.searcher.sampled import search_sampled
from nas_kd.searcher.variables import Point, SearchVariables

if TYPE_CHECKING:
    from nas_kd.searcher.evaluation import Evaluation
    from nas_kd.searcher.trials import TrialLog

FIRST = 10  # network-wise settings in the first generation of 20; the others are drawn


class NSGA2:
    """Optuna's NSGA-II; its first generation holds network-wise settings within the budget and random ones."""

    name = "nsga2"
    guided: ClassVar = False
    shared: ClassVar = True
    fixed_objectives: ClassVar = False

    def search(self, evaluation: Evaluation) -> TrialLog:
        """Evolve until there are enough archs."""
        budget = evaluation.budget
        variables = SearchVariables(budget.space)

        def affordable(point: Point) -> bool:
            return budget.affordable(variables.decode(point))

        def macs(point: Point) -> int:
            return budget.cost_of(variables.decode(point)).macs

        # the smallest arch is always among the first: from its neighbours a tight budget can be explored
        return search_sampled(evaluation, variables, "nsga2", coarse_grid(variables, affordable, macs, FIRST))
