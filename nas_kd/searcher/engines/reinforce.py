"""A recurrent controller that is rewarded by what subnets learn from the teacher, and by their cost.

The reward is quality * (cost / budget)^-0.07: quality is the first of the search's objectives (``tuned_accuracy``, of a
short distilled training, is the paper's), the cost that of the bound which an arch comes closest to. The controller is
an LSTM that learns by REINFORCE with an average of rewards as the baseline. Archs over the budget are not measured.

Source: AKD, Search to Distill (Liu et al. 2020), whose controller learns by PPO; REINFORCE as in Zoph and Le 2017.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from nas_kd.config.measures import COSTS
from nas_kd.searcher.one_by_one import search_one_by_one
from nas_kd.searcher.variables import SearchVariables

if TYPE_CHECKING:
    from nas_kd.searcher.evaluation import Evaluation
    from nas_kd.searcher.trials import TrialLog


class Reinforce:
    """Writes archs choice by choice, and learns which are rewarded."""

    name = "reinforce"
    guided: ClassVar = True
    shared: ClassVar = False  # the controller learns in one process
    fixed_objectives: ClassVar = False

    def search(self, evaluation: Evaluation) -> TrialLog:
        """Let the controller write archs until there are enough."""
        from nas_kd.searcher.controller import Proposer  # torch
        from nas_kd.space.rows import stage_scores  # pandas

        budget = evaluation.budget
        variables = SearchVariables(budget.space)
        quality = next(name for name in evaluation.objectives if name not in COSTS)
        proposer = Proposer(self.name, quality, lambda point: budget.bounded(variables.decode(point)))
        scores = stage_scores(budget.space, evaluation.need_guide().tables)
        return search_one_by_one(proposer, evaluation, lambda arch: sum(scores(arch)))
