"""Searches that vary archs dimension by dimension, led by the accuracy of whole subnets and by MACs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from nas_kd.runs.stage import Stage
from nas_kd.searcher.budget import Budget
from nas_kd.searcher.coarse import coarse_grid, coarse_to_fine
from nas_kd.searcher.engine import Engine, Problem, one_by_one
from nas_kd.searcher.optuna import refine
from nas_kd.searcher.shared import WorkerGroup
from nas_kd.searcher.trials import TrialLog
from nas_kd.searcher.variables import Point, SearchVariables
from nas_kd.space import Arch

ENGINES = ("nsga2", "coarse", "random")
FIRST = 10  # network-wise settings in the first generation of 20; the others are drawn


@dataclass
class _Known:
    """Archs of points, decoded once."""

    variables: SearchVariables
    archs: dict[Point, Arch] = field(default_factory=dict)

    def __call__(self, point: Point) -> Arch:
        if point not in self.archs:
            self.archs[point] = self.variables.decode(point)
        return self.archs[point]


def evolve(
    engine: str | Engine,
    budget: Budget,
    scorer: Callable[[Arch], dict[str, float]],
    extra: Mapping[str, Arch],
    *,
    objectives: Sequence[str],
    trials: int,
    seed: int,
    stage: Stage | None,
    group: WorkerGroup | None = None,
) -> tuple[pd.DataFrame, dict[str, Arch]]:
    """Search for archs of high accuracy and low cost within a budget, from scores of whole subnets alone.

    Args:
        engine: ``nsga2`` (Optuna's NSGA-II; its first generation holds network-wise settings within the
            budget and random ones), ``coarse`` (see `coarse_to_fine`), ``random`` (uniform draws of every
            dimension, the baseline), or an object that proposes.
        budget: the budget; only archs that keep it are scored.
        scorer: scores of an arch, ``accuracy`` among them.
        extra: archs by role to score as well, the size controls.
        objectives: what to be good in, ``accuracy`` and costs.
        trials: distinct archs to score besides ``extra``.
        seed: seed of the proposals.
        stage: where trials.csv, and study.journal of Optuna's engines, go; the rows are taken up again.
        group: where other processes may join Optuna's engines.

    Returns:
        One row a proposal and control, and every scored arch by its key.

    Source: NSGA-II (Deb et al. 2002); for supernets as in NSGANetV2 (Lu et al. 2020); BigNAS (Yu et al. 2020).
    """
    variables = SearchVariables(budget.space)
    arch = _Known(variables)

    def macs(point: Point) -> int:
        return budget.cost_of(arch(point)).macs

    def evaluate(point: Point) -> dict[str, float]:
        return budget.costs(arch(point), objectives) | scorer(arch(point))

    def affordable(point: Point) -> bool:
        return budget.affordable(arch(point))

    log = TrialLog(
        budget,
        lambda point: arch(tuple(point)),
        len(variables.variables),
        scorer,
        stage=stage,
        trials=trials,
        timed="latency_ms" in objectives,
    )
    with log.progress:
        if not isinstance(engine, str):
            one_by_one(
                engine,
                Problem(variables, affordable, macs, tuple(objectives), trials, seed),
                evaluate,
                feasible=lambda point: budget.fits(arch(point)),
                done=log.proposals,
                record=log.record,
            )
        elif engine == "coarse":
            coarse_to_fine(
                variables,
                evaluate,
                cost=macs,
                affordable=affordable,
                feasible=lambda point: budget.fits(arch(point)),
                trials=trials,
                seed=seed,
                done=log.proposals,
                record=log.record,
            )
        else:
            # the smallest arch is always among the first: from its neighbours a tight budget can be explored
            warm = coarse_grid(variables, affordable, macs, FIRST) if engine == "nsga2" else ()
            refine(
                variables.sizes,
                evaluate,
                constraints=lambda point: budget.violations(arch(point)),
                objective=objectives,
                maximise=("accuracy",),
                canonical=variables.canonical,
                warm=warm,
                trials=trials,
                seed=seed,
                sampler=engine,
                done=log.proposals,
                record=log.record,
                journal=None if stage is None else stage.folder / "study.journal",
                group=group,
            )
        log.controls(extra)
    return log.frame(), log.archs
