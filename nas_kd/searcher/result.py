"""What a search found, in memory and read back from its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from nas_kd.config.measures import COSTS, low_is_better
from nas_kd.runs.files import read_json
from nas_kd.runs.shape import as_written
from nas_kd.runs.stage import Stage
from nas_kd.searcher.objectives import checked_objectives
from nas_kd.solve.pareto import nondominated
from nas_kd.space import Arch, ElasticSpace


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Args:
        best: the architecture that was best in the short training, or without one by its score.
        budget: upper bounds by column, ``macs`` and ``params``.
        trials: one row per proposal of the engine and per control.
        top: one row per arch of the short training.
        exact: the exact front of the stage scores; empty when there are none.
        objectives: what was optimised.
    """

    best: Arch
    space: ElasticSpace
    budget: Mapping[str, int]
    trials: pd.DataFrame
    top: pd.DataFrame
    exact: pd.DataFrame
    engine: str = "exact"
    objectives: tuple[str, ...] = ("kl",)

    def frame(self) -> pd.DataFrame:
        """Return all trials."""
        return self.trials.copy()

    def front(self) -> pd.DataFrame:
        """Return the trials that no other beats in all objectives, cheapest first; MACs are added to a single one."""
        costs = [name for name in COSTS if name in self.objectives]
        scores = [name for name in self.objectives if name not in COSTS]
        costs += ["macs"] if len(self.objectives) == 1 else []
        high = [name for name in scores if not low_is_better(name)]
        return nondominated(self.trials, [*costs, *scores], high)


def load_search(stage: Stage, space: ElasticSpace) -> SearchResult:
    """Read a finished search back from its folder."""
    found = read_json(stage.folder / "best.json", ("arch", "budget", "engine"))
    exact = stage.read_frame("front.csv") if (stage.folder / "front.csv").exists() else pd.DataFrame()
    frames = stage.read_frame("trials.csv"), stage.read_frame("top.csv"), exact
    engine = found["engine"]
    with as_written(stage.folder / "best.json", f"delete {stage.folder} and run the same command again"):
        best = Arch.from_dict(found["arch"])
        space.validate(best)
        objectives = tuple(found.get("objectives") or checked_objectives(None, engine))
    return SearchResult(best, space, found["budget"], *frames, engine, objectives)
