"""NNI's tuners as engines: within the budget, each arch once, the same again after a stop, and named before import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from nas_kd.analyse.frames import NNI, is_guided
from nas_kd.errors import SettingError
from nas_kd.runs.run import Run
from nas_kd.searcher.budget import Budget
from nas_kd.searcher.config import SearchConfig
from nas_kd.searcher.engine import NNI_PREFIX, Problem
from nas_kd.searcher.engines import search_engine
from nas_kd.searcher.evaluation import Evaluation, Guide
from nas_kd.searcher.nni_engine import TUNERS, NniEngine, _Proposer, _tuner
from nas_kd.searcher.trials import evaluated
from nas_kd.searcher.variables import SearchVariables
from nas_kd.space import Arch, ElasticSpace
from nas_kd.space.rows import rows_of

pytest.importorskip("nni", reason="NNI is an extra")


def scored(arch: Arch, space: ElasticSpace) -> dict[str, float]:
    """Score an arch: the first variable is best at 0, the others at their largest."""
    variables = SearchVariables(space)
    point = variables.encode(arch)
    off = point[0] + sum(size - 1 - at for at, size in zip(point[1:], variables.sizes[1:], strict=True))
    return {"accuracy": 1 / (1 + off), "kl": float(off), "agreement": 0.5, "loss": float(off)}


def search(
    engine: str, space: ElasticSpace, cost: dict[str, int], trials: int, folder: Path | None = None, stop: int = 10**9
) -> pd.DataFrame:
    tables = [rows_of(space, index, **cost).assign(score=0.0) for index in range(len(space.stages))]
    stage = None if folder is None else Run(folder).stage("search", {})
    budget = Budget(space, cost, {"macs": int(0.7 * space.cost(space.largest(), **cost).macs)})
    left = [stop]

    def scorer(arch: Arch) -> dict[str, float]:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return scored(arch, space)

    guide = Guide(tables, pd.DataFrame(), 8, "tpe", "dimensions")
    evaluation = Evaluation(budget, scorer, ("kl",), trials, 0, guide=guide, stage=stage)
    return search_engine(engine).search(evaluation).frame()


@pytest.mark.parametrize("name", sorted(TUNERS))
def test_a_tuner_keeps_what_engines_promise(
    name: str, space: ElasticSpace, cost: dict[str, int], tmp_path: Path
) -> None:
    engine = f"nni:{name}"
    whole = search(engine, space, cost, 16, tmp_path / "whole")
    found = evaluated(whole)
    assert len(found) == 16 == found["key"].nunique() and found["feasible"].all()
    assert found["key"].iloc[0] == space.smallest().key
    with pytest.raises(KeyboardInterrupt):
        search(engine, space, cost, 16, tmp_path / "part", stop=7)
    search(engine, space, cost, 16, tmp_path / "part")
    texts = [(tmp_path / name / "search/trials.csv").read_text() for name in ("whole", "part")]
    assert texts[0] == texts[1]
    assert (whole["kind"] == "trial").any()  # its own, not only random ones in the place of them


class Told:
    """A tuner that proposes given points, and notes what it is told."""

    def __init__(self, points: list[tuple[int, ...]]) -> None:
        self.points = points
        self.told: list[tuple[int, float | None]] = []

    def update_search_space(self, space: dict[str, Any]) -> None:
        self.sizes = [len(each["_value"]) for each in space.values()]

    def generate_parameters(self, number: int) -> dict[str, int]:
        return {f"i_{i}": at for i, at in enumerate(self.points[number], 1)}

    def receive_trial_result(self, number: int, parameters: Any, value: float) -> None:
        self.told.append((number, value))

    def trial_end(self, number: int, success: bool) -> None:
        if not success:
            self.told.append((number, None))


def test_a_tuner_is_told_what_came_of_its_own_proposals(space: ElasticSpace) -> None:
    """KL with its sign turned, a little worse than the worst over the budget, nothing where another was measured."""
    variables = SearchVariables(space)
    points = [variables.encode(space.sample(seed)) for seed in range(5)]
    tuner = Told(points)
    proposer = _Proposer("nni:told", tuner, "kl")
    problem = Problem(variables, lambda point: False, lambda point: 0, ("kl",), 9, 0)
    kinds = [("trial", points[0], 2.0), ("infeasible", points[1], None), ("random", points[4], 1.0)]
    rows: list[dict[str, Any]] = []
    for number, (kind, point, kl) in enumerate(kinds):
        assert proposer.propose(problem, rows) == points[number]
        rows.append({"number": number, "kind": kind, "kl": kl} | {f"i_{i}": at for i, at in enumerate(point, 1)})
    assert proposer.propose(problem, rows) == points[3]
    assert tuner.sizes == variables.sizes
    assert tuner.told == [(0, -2.0), (1, pytest.approx(-2.03)), (2, None)]


def test_what_is_no_tuner_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingError, match=r"search\.engine='nni:tpo'.*nni:tpe"):
        SearchConfig(engine="nni:tpo")
    assert SearchConfig(engine="nni:tpe").engine == "nni:tpe"
    with pytest.raises(SettingError, match=r"search\.storage=.*nni:tpe"):
        SearchConfig(engine="nni:tpe", storage="postgresql://me@here/trials")
    assert NNI == NNI_PREFIX and is_guided("nni:tpe") and NniEngine.guided and not is_guided("nsga2")
    missing = {"tpe": ("no_such_package.tuner", "TpeTuner")}
    monkeypatch.setattr("nas_kd.searcher.nni_engine.TUNERS", missing)
    with pytest.raises(SettingError, match=r"nni:tpe.*pip install"):
        _tuner("tpe", 0)
