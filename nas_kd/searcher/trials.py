"""The rows of a search: every proposal and control as it is known, in memory and in trials.csv."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from nas_kd.runs.progress import Progress
from nas_kd.runs.stage import Stage
from nas_kd.searcher.budget import Budget
from nas_kd.space import Arch

OTHERS = ("infeasible", "duplicate", "control")  # kinds of rows that are not distinct evaluations of the engine


SCORES = ("score", "kl", "agreement", "loss")  # besides the task's measure


def scores_of(metric: str) -> tuple[str, ...]:
    """Return the columns of scores, one of which is the metric's."""
    return ("score", "kl", metric, "agreement", "loss")


def evaluated(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that are distinct evaluations of the engine."""
    return rows[~rows["kind"].isin(OTHERS)]


def with_further(stage: Stage, begin: Sequence[Arch], trials: int) -> int:
    """Return how many archs to score in all, where those to begin with were fewer when the search began.

    Args:
        stage: the search's, with the rows so far.
        begin: archs to score first.
        trials: how many were asked for.
    """
    rows = stage.log("trials.csv").frame()
    known = set(evaluated(rows)["key"]) if len(rows) else set()
    further = sum(arch.key not in known for arch in begin)
    return max(trials, len(known) + further) if len(begin) <= trials else trials


class TrialLog:
    """Keeps the rows of one search and the archs behind them.

    Args:
        arch_of: returns the arch of a point.
        dimensions: length of a point.
        scorer: returns the scores of a whole subnet.
        additive: returns the sum of an arch's stage scores; NaN where there are none.
        stage: stores trials.csv; rows that are already in it are read back, the controls only where no more trials
            come before them.
        trials: number of evaluations.
        timed: latency is an objective, and a column.
        further: columns of scores that only some searches measure.
        metric: the name of the task's measure, which is a column.
    """

    def __init__(
        self,
        budget: Budget,
        arch_of: Callable[[Sequence[int]], Arch],
        dimensions: int,
        scorer: Callable[[Arch], dict[str, float]],
        *,
        additive: Callable[[Arch], float] = lambda arch: math.nan,
        stage: Stage | None,
        trials: int,
        timed: bool = False,
        further: Sequence[str] = (),
        metric: str = "accuracy",
    ) -> None:
        self.budget = budget
        self.arch_of = arch_of
        self.scorer = scorer
        self.additive = additive
        self.timed = ("latency_ms",) if timed else ()
        self.further = tuple(further)
        self.metric = metric
        if stage is not None:
            _rename_metric(stage, metric)
        self.file = None if stage is None else stage.log("trials.csv")
        self.indices = [f"i_{i}" for i in range(1, dimensions + 1)]
        self.rows: list[dict[str, Any]] = [] if self.file is None else self.file.frame().to_dict("records")  # type: ignore[assignment]
        self.archs: dict[str, Arch] = {}
        for row in self.proposals:
            if row["kind"] not in OTHERS:
                self.archs[row["key"]] = self._arch(row)
        if self.file is not None and len(self.archs) < trials:  # controls stand last, and are scored again
            self.rows = self.proposals
            self.file.cut("number", len(self.rows) - 1)
        run = None if stage is None else stage.run
        self.progress = Progress("search", trials, done=len(self.archs), unit="subnets", run=run)

    @property
    def proposals(self) -> list[dict[str, Any]]:
        """Rows of the engine, without the controls."""
        return [row for row in self.rows if row["kind"] != "control"]

    def record(self, row: Mapping[str, Any]) -> None:
        """Store a row of the engine."""
        arch = self._arch(row)
        if row["kind"] not in OTHERS:
            self.archs[arch.key] = arch
            self.progress.advance(**{name: row[name] for name in ("kl", self.metric) if name in row})
        self._append(dict(row) | self._facts(arch))

    def controls(self, extra: Mapping[str, Arch]) -> None:
        """Score the controls, archs by role, that are not scored yet."""
        scored = {row["role"] for row in self.rows if row["kind"] == "control"}
        for role, arch in extra.items():
            self.archs.setdefault(arch.key, arch)
            if role not in scored:
                row = {"number": len(self.rows), "kind": "control", "role": role, "feasible": self.budget.fits(arch)}
                self._append(row | self._facts(arch) | self.budget.costs(arch, self.timed) | self.scorer(arch))

    def frame(self) -> pd.DataFrame:
        """Return all rows: number, kind, role, key, label, scores, costs, feasible, i_1 ... i_D."""
        return pd.DataFrame(self.rows, columns=self._columns)

    @property
    def _columns(self) -> list[str]:
        named = [
            "number",
            "kind",
            "role",
            "key",
            "label",
            *scores_of(self.metric),
            *self.further,
            "macs",
            "params",
            *self.timed,
            "feasible",
        ]
        return named + self.indices

    def _arch(self, row: Mapping[str, Any]) -> Arch:
        return self.arch_of([int(row[i]) for i in self.indices])

    def _facts(self, arch: Arch) -> dict[str, Any]:
        total = self.budget.cost_of(arch)
        named = {"key": arch.key, "label": arch.label, "macs": total.macs, "params": total.params}
        return named | {"score": self.additive(arch)}

    def _append(self, known: Mapping[str, Any]) -> None:
        self.rows.append({column: known.get(column) for column in self._columns})
        if self.file is not None:
            self.file.append(self.rows[-1])


def _rename_metric(stage: Stage, metric: str) -> None:
    """Give the metric its name in the rows of a search that was begun when they called every metric accuracy."""
    if metric != "accuracy" and "accuracy" in stage.log("trials.csv").columns:
        stage.write_frame("trials.csv", stage.read_frame("trials.csv").rename(columns={"accuracy": metric}))
