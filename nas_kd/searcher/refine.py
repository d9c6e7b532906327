"""Scores of whole subnets: Optuna's proposals among the pruned candidates, then the size controls."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from nas_kd.errors import SettingError
from nas_kd.runs.stage import Stage
from nas_kd.searcher.budget import Budget
from nas_kd.searcher.optuna import refine
from nas_kd.searcher.shared import WorkerGroup
from nas_kd.searcher.trials import TrialLog
from nas_kd.searcher.variables import Point, SearchVariables
from nas_kd.solve import exact_front, k_best
from nas_kd.solve.shortlist import shortlists
from nas_kd.space import Arch, ElasticSpace
from nas_kd.space.rows import arch_of, choices_of, stage_scores

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

# points of the exact front that are evaluated first: where the ratings only say where to begin, they take fewer turns
WARM = {"candidates": 24, "dimensions": 8}


def score_subnets(
    tables: Sequence[pd.DataFrame],
    exact: pd.DataFrame,
    budget: Budget,
    scorer: Callable[[Arch], dict[str, float]],
    extra: Mapping[str, Arch],
    *,
    resolution: int,
    trials: int,
    sampler: str | BaseSampler,
    variables: str = "dimensions",
    objectives: Sequence[str] = ("kl",),
    seed: int,
    stage: Stage | None,
    group: WorkerGroup | None = None,
) -> tuple[pd.DataFrame, dict[str, Arch]]:
    """Refine the exact front with scores of whole subnets.

    Args:
        tables: rating tables with the columns of `rows_of`.
        exact: their exact front.
        budget: the budget; only archs that keep it are scored.
        scorer: ``kl``, ``accuracy`` and ``agreement`` of an arch.
        extra: archs by role to score as well, the size controls.
        resolution: input size that the tables were rated at.
        trials: distinct subnets to score besides ``extra``.
        sampler: Optuna's sampler by name, or any of its objects.
        variables: what it varies: ``dimensions`` (every width, depth, kernel ... by itself; the ratings say where
            to begin) or ``candidates`` (one index a stage, into those that the ratings prefer).
        objectives: what to be good in: ``kl`` or ``accuracy``, and costs.
        seed: seed of the proposals.
        stage: where trials.csv and study.journal go; its rows are taken up again.
        group: where other processes may join.

    Returns:
        One row a proposal and control, and every scored arch by its key.
    """
    space = budget.space
    caps = budget.caps
    coded = [table.assign(choice=choices_of(space, index, table)) for index, table in enumerate(tables)]
    if variables == "dimensions":
        sizes, arch, canonical, point_of = _dimensions(space, resolution)
    else:
        lists = shortlists(coded, ("macs", "params") if "params" in caps else ("macs",))
        sizes, arch, canonical, point_of = _candidates(space, lists, resolution)
    begun = warm_choices(exact, coded, budget, WARM[variables], spread=len(objectives) > 1)
    warm = [point for row in begun if (point := point_of(row)) is not None]
    if variables == "dimensions":
        simple = space.simple_archs(budget.affords, budget.cost).values()
        warm += [point for arch_ in simple if (point := SearchVariables(space).encode(arch_)) not in warm]
    stages = stage_scores(space, tables)
    log = TrialLog(
        budget,
        arch,
        len(sizes),
        scorer,
        additive=lambda arch: sum(stages(arch)),
        stage=stage,
        trials=trials,
        timed="latency_ms" in objectives,
    )
    with log.progress:
        refine(
            sizes,
            lambda point: budget.costs(arch(point), objectives) | scorer(arch(point)),
            constraints=lambda point: budget.violations(arch(point)),
            objective=objectives,
            maximise=[name for name in objectives if name == "accuracy"],
            canonical=canonical,
            warm=warm,
            trials=trials,
            seed=seed,
            sampler=sampler,
            done=log.proposals,
            record=log.record,
            journal=None if stage is None else stage.folder / "study.journal",
            group=group,
        )
        log.controls(extra)
    return log.frame(), log.archs


class _Variables(NamedTuple):
    """What a sampler varies: how many values each variable has, and the subnets behind them."""

    sizes: list[int]
    arch: Callable[[Sequence[int]], Arch]
    canonical: Callable[[Point], Point] | None
    point_of: Callable[[Sequence[int]], Point | None]  # of one choice a stage; None where the variables lack it


def _candidates(space: ElasticSpace, lists: Sequence[Sequence[int]], resolution: int) -> _Variables:
    def arch(point: Sequence[int]) -> Arch:
        return arch_of(space, [names[i] for names, i in zip(lists, point, strict=True)], resolution)

    def point_of(choices: Sequence[int]) -> Point | None:
        held = all(choice in names for choice, names in zip(choices, lists, strict=True))
        return tuple(names.index(c) for c, names in zip(choices, lists, strict=True)) if held else None

    return _Variables([len(names) for names in lists], arch, None, point_of)


def _dimensions(space: ElasticSpace, resolution: int) -> _Variables:
    variables = SearchVariables(space)
    return _Variables(
        variables.sizes,
        variables.decode,
        variables.canonical,
        lambda choices: variables.encode(arch_of(space, choices, resolution)),
    )


def warm_choices(
    exact: pd.DataFrame, coded: Sequence[pd.DataFrame], budget: Budget, count: int, spread: bool = False
) -> list[list[int]]:
    """Return the ``count`` best-scored chains within the budget, best first, a choice a stage: the exact front's.

    ``spread`` takes them from all over that front, the smallest and the best-scored among them. Where the
    budget has a smallest cost or a latency, of which the front knows nothing, they are the best chains
    that differ in a fifth of their stages from each other; latencies of rows only estimate those of networks.
    """
    caps = budget.caps
    limits = budget.limits
    if timed := budget.max_latency_ms is not None and all("latency_ms" in table for table in coded):
        limits = limits | {"latency_ms": (None, budget.max_latency_ms)}
    if budget.floors or timed:
        try:
            within = k_best(coded, count, bounds=limits, different=0.2)
        except SettingError:  # by the estimates nobody keeps the latency; measurements decide
            return []
    elif "params" in caps:  # a front in macs alone misses chains that the cap on params makes best
        within = exact_front(coded, bounds=caps)
    else:
        within = exact[exact["macs"] <= caps.get("macs", math.inf)]
    within = within.sort_values("score")
    if spread and len(within) > count:
        within = within.iloc[np.linspace(0, len(within) - 1, count).round().astype(int)]
    within = within.head(count)
    return [
        [int(table.loc[row[f"row_{stage}"], "choice"]) for stage, table in enumerate(coded, 1)]
        for _, row in within.iterrows()
    ]
