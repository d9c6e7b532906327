"""The exact front of the stage scores, then Optuna's proposals from there, scored as whole subnets."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from nas_kd.searcher.sampled import search_sampled

if TYPE_CHECKING:
    from nas_kd.searcher.evaluation import Evaluation
    from nas_kd.searcher.trials import TrialLog

# points of the exact front that are evaluated first; fewer where the ratings only give the first points
WARM = {"candidates": 24, "dimensions": 8}


class Exact:
    """Starts from the best-rated chains, and varies dimensions, or candidates that the ratings prefer."""

    name = "exact"
    guided: ClassVar = True
    shared: ClassVar = True
    fixed_objectives: ClassVar = False

    def search(self, evaluation: Evaluation) -> TrialLog:
        """Refine the exact front until there are enough archs."""
        from nas_kd.searcher.chains import Candidates, Dimensions, warm_choices  # pandas
        from nas_kd.space.rows import choices_of, stage_scores

        guide = evaluation.need_guide()
        space = evaluation.budget.space
        coded = [table.assign(choice=choices_of(space, index, table)) for index, table in enumerate(guide.tables)]
        variables: Candidates | Dimensions
        if guide.variables == "dimensions":
            variables = Dimensions(space, guide.resolution)
            first = [variables.encode(arch) for arch in guide.begin]
        else:
            variables = Candidates.preferred(space, guide.resolution, coded, evaluation.budget)
            first = []
        count = WARM[guide.variables]
        chains = warm_choices(guide.front, coded, evaluation.budget, count, spread=len(evaluation.objectives) > 1)
        rated = [point for choices in chains if (point := variables.point_of(choices)) is not None]
        warm = first + [point for point in rated if point not in first]
        warm += [point for point in variables.simple(evaluation.budget) if point not in warm]
        scores = stage_scores(space, guide.tables)
        return search_sampled(evaluation, variables, guide.sampler, warm, lambda arch: sum(scores(arch)))
