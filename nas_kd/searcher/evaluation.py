"""How archs are scored in one search, and where the rows go."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd

from nas_kd.config.measures import low_is_better
from nas_kd.errors import SettingError
from nas_kd.runs.stage import Stage
from nas_kd.searcher.budget import Budget
from nas_kd.searcher.shared import WorkerGroup
from nas_kd.searcher.trials import TrialLog
from nas_kd.space import Arch

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


@dataclass(frozen=True)
class Guide:
    """What a guided engine uses: a teacher's ratings of the candidates of each stage.

    Args:
        tables: rating tables with the columns of `rows_of`, one per stage.
        front: their exact front.
        resolution: input size that the tables were rated at.
        sampler: name of an Optuna sampler, or an Optuna sampler.
        variables: the search variables: ``dimensions`` or ``candidates``.
        begin: archs to score first where dimensions vary.
    """

    tables: Sequence[pd.DataFrame]
    front: pd.DataFrame
    resolution: int
    sampler: str | BaseSampler
    variables: str
    begin: Sequence[Arch] = ()


@dataclass(frozen=True)
class Evaluation:
    """What an engine needs to search.

    Args:
        budget: only archs within it are scored.
        scorer: returns the scores of an arch.
        objectives: what to optimise: ``kl`` (low), the metric by its name, either of tuned subnets, and costs (low).
        trials: distinct archs to score besides ``controls``.
        seed: seed of the proposals.
        controls: archs by role to score as well, the size controls.
        guide: for guided engines.
        stage: stores trials.csv, and the study.journal of Optuna's engines; a resumed search reads the rows back.
        group: lets other processes join a shared engine.
        metric: the name of the task's measure.
        further: columns of scores that only some searches measure.
        begin: archs that Optuna's engines score first, where they vary dimensions.
    """

    budget: Budget
    scorer: Callable[[Arch], dict[str, float]]
    objectives: tuple[str, ...]
    trials: int
    seed: int = 0
    controls: Mapping[str, Arch] = field(default_factory=dict)
    guide: Guide | None = None
    stage: Stage | None = None
    group: WorkerGroup | None = None
    metric: str = "accuracy"
    further: Sequence[str] = ()
    begin: Sequence[Arch] = ()

    def need_guide(self) -> Guide:
        """Return the ratings; raise if there are none."""
        if self.guide is None:
            raise SettingError("guide", None, "rating tables, one per stage", "rate the stages with a teacher")
        return self.guide

    @property
    def maximised(self) -> list[str]:
        """Those of the objectives of which higher is better."""
        return [name for name in self.objectives if not low_is_better(name)]

    def scores(self, arch: Arch) -> dict[str, float]:
        """Return an arch's scores, and its costs that are objectives."""
        return self.budget.costs(arch, self.objectives) | self.scorer(arch)

    @contextmanager
    def log(
        self,
        arch_of: Callable[[Sequence[int]], Arch],
        dimensions: int,
        additive: Callable[[Arch], float] = lambda arch: math.nan,
    ) -> Iterator[TrialLog]:
        """Open the rows of the search; at the end the controls are scored too.

        Args:
            arch_of: returns the arch of a point.
            dimensions: length of a point.
            additive: returns the sum of an arch's stage scores; NaN where there are none.
        """
        log = TrialLog(
            self.budget,
            arch_of,
            dimensions,
            self.scorer,
            additive=additive,
            stage=self.stage,
            trials=self.trials,
            timed="latency_ms" in self.objectives,
            further=self.further,
            metric=self.metric,
        )
        with log.progress:
            yield log
            log.controls(self.controls)
