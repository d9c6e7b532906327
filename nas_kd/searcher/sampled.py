"""The search of engines that are Optuna samplers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Protocol

from nas_kd.searcher.optuna import refine
from nas_kd.searcher.variables import Point, SearchVariables
from nas_kd.space import Arch

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from nas_kd.searcher.evaluation import Evaluation
    from nas_kd.searcher.trials import TrialLog


class Variables(Protocol):
    """What a sampler varies, and the archs behind its points."""

    @property
    def sizes(self) -> list[int]:
        """Number of values of each variable."""

    @property
    def labels(self) -> list[str]:
        """Names of the variables that a person reads."""

    def decode(self, point: Sequence[int]) -> Arch:
        """Return the arch of a point."""

    def canonical(self, point: Sequence[int]) -> Point:
        """Return the point that represents all points of the same arch."""


def search_sampled(
    evaluation: Evaluation,
    variables: Variables,
    sampler: str | BaseSampler,
    warm: Iterable[Point] = (),
    additive: Callable[[Arch], float] = lambda arch: math.nan,
) -> TrialLog:
    """Let a sampler propose until there are enough archs; other processes may help.

    Args:
        sampler: name of an Optuna sampler, or an Optuna sampler.
        warm: points to evaluate first.
        additive: returns the sum of an arch's stage scores.
    """
    budget = evaluation.budget
    stage = evaluation.stage
    if budget.listed and isinstance(variables, SearchVariables):  # no sampler would come upon them
        warm = [*warm, *(variables.encode(arch) for arch in budget.listed if budget.affordable(arch))]

    if isinstance(variables, SearchVariables):
        warm = [*(variables.encode(arch) for arch in evaluation.begin if budget.affordable(arch)), *warm]

    @cache
    def arch(point: Point) -> Arch:
        return variables.decode(point)

    with evaluation.log(lambda point: arch(tuple(point)), len(variables.sizes), additive) as log:
        refine(
            dict(zip(variables.labels, variables.sizes, strict=True)),
            lambda point: evaluation.scores(arch(point)),
            constraints=lambda point: budget.violations(arch(point)),
            objective=evaluation.objectives,
            maximise=evaluation.maximised,
            canonical=variables.canonical,
            warm=warm,
            trials=evaluation.trials,
            seed=evaluation.seed,
            sampler=sampler,
            done=log.proposals,
            record=log.record,
            journal=None if stage is None else stage.folder / "study.journal",
            group=evaluation.group,
        )
    return log
