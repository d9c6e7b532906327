"""Gates on the channels and units of the teacher, learned with its weights until the budget is met.

The arch that they say is scored first, as a whole subnet; Optuna then varies it as in ``exact``, and the best are tuned
and trained as there. With ``trials=1`` it is the only one.

Source: Gu and Tresp, Search for Better Students to Learn Distilled Knowledge, 2020.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from nas_kd.searcher.sampled import search_sampled

if TYPE_CHECKING:
    from nas_kd.searcher.evaluation import Evaluation
    from nas_kd.searcher.trials import TrialLog


class GatesEngine:
    """Starts from the arch of the learned gates, and varies dimensions."""

    name = "gates"
    guided: ClassVar = True
    shared: ClassVar = False  # the gates learn in one process
    fixed_objectives: ClassVar = False

    def search(self, evaluation: Evaluation) -> TrialLog:
        """Score the gates' arch, and refine it until there are enough archs."""
        from nas_kd.searcher.chains import Dimensions  # pandas
        from nas_kd.space.rows import stage_scores

        guide = evaluation.need_guide()
        space = evaluation.budget.space
        variables = Dimensions(space, guide.resolution)
        warm = [variables.encode(arch) for arch in guide.begin]
        scores = stage_scores(space, guide.tables)
        return search_sampled(evaluation, variables, guide.sampler, warm, lambda arch: sum(scores(arch)))
