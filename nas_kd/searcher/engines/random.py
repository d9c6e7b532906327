"""Random search: uniform draws of every dimension, the baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from nas_kd.searcher.sampled import search_sampled
from nas_kd.searcher.variables import SearchVariables

if TYPE_CHECKING:
    from nas_kd.searcher.evaluation import Evaluation
    from nas_kd.searcher.trials import TrialLog


class Random:
    """Uniform draws."""

    name = "random"
    guided: ClassVar = False
    shared: ClassVar = True
    fixed_objectives: ClassVar = False

    def search(self, evaluation: Evaluation) -> TrialLog:
        """Draw until there are enough archs."""
        return search_sampled(evaluation, SearchVariables(evaluation.budget.space), "random")
