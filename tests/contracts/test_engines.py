"""What a search engine promises: archs within the budget, each once, the same ones again, and good ones.

An engine that is written in one file, here, is held to the same and searches by being passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import nas_kd
from nas_kd.blocks import BasicStage, ConvStem, LinearHead
from nas_kd.config.names import names_in_tables
from nas_kd.data import Data
from nas_kd.errors import SettingError
from nas_kd.runs.run import Run
from nas_kd.searcher import engines
from nas_kd.searcher.budget import Budget
from nas_kd.searcher.config import SearchConfig
from nas_kd.searcher.engine import Engine, Problem, point_of
from nas_kd.searcher.engines import ENGINES, search_engine
from nas_kd.searcher.evaluation import Evaluation, Guide
from nas_kd.searcher.trials import evaluated
from nas_kd.searcher.variables import Point, SearchVariables
from nas_kd.solve import exact_front
from nas_kd.space import Arch, ElasticSpace
from nas_kd.space.rows import rows_of
from nas_kd.supernet import Supernet

SPACE = ElasticSpace(
    name="tiny",
    stem=ConvStem(width=8),
    stages=(
        BasicStage(widths=(4, 8), depths=(1, 2), mids=(2, 4, 8), stride=1),
        BasicStage(widths=(8, 12), depths=(1, 2), mids=(4,), stride=2),
    ),
    head=LinearHead(),
    resolution=8,
)
COST = {"resolution": 8, "in_chans": 1, "num_classes": 3}
CAPS = {"macs": int(0.7 * SPACE.cost(SPACE.largest(), **COST).macs)}
BUDGET = Budget(SPACE, COST, CAPS)
WITHIN = [arch for arch in SPACE if SPACE.cost(arch, **COST).macs <= CAPS["macs"]]
VARIABLES = SearchVariables(SPACE)


@dataclass(frozen=True)
class Climber:
    """Changes one variable of the best arch so far, one after the other."""

    step: int = 1

    @property
    def name(self) -> str:
        return f"climber_{self.step}"

    def propose(self, problem: Problem, rows: Sequence[dict[str, Any]]) -> Point | None:
        sizes = problem.variables.sizes
        known = [row for row in rows if row["kind"] != "infeasible"]
        if not known:
            return problem.variables.canonical([0] * len(sizes))
        best = list(point_of(max(known, key=lambda row: (row["accuracy"], -row["number"])), len(sizes)))
        seen = {point_of(row, len(sizes)) for row in rows}
        for at, size in enumerate(sizes):
            moved = [*best[:at], (best[at] + self.step) % size, *best[at + 1 :]]
            if (point := problem.variables.canonical(moved)) not in seen and problem.affordable(point):
                return point
        return None


ALL: list[str | Engine] = [*ENGINES, Climber()]
every = pytest.mark.parametrize("engine", ALL, ids=lambda engine: engine if isinstance(engine, str) else engine.name)


def toy(arch: Arch, variables: SearchVariables = VARIABLES) -> dict[str, float]:
    """Score an arch by its variables: the best one has the largest widths and the smallest depths."""
    point = variables.encode(arch)
    wanted = [0 if variable.kind == "depth" else len(variable.values) - 1 for variable in variables.variables]
    off = sum((at - want) ** 2 * (1 + 0.01 * place) for place, (at, want) in enumerate(zip(point, wanted, strict=True)))
    return {"accuracy": 1 / (1 + off), "kl": float(off), "agreement": 0.5, "loss": float(off)}


def search(
    engine: str | Engine,
    trials: int,
    *,
    seed: int = 0,
    scorer: Callable[[Arch], dict[str, float]] = toy,
    folder: Path | None = None,
) -> tuple[pd.DataFrame, dict[str, Arch]]:
    stage = None if folder is None else Run(folder).stage("search", {"seed": seed})
    searches = search_engine(engine)
    tables = [rows_of(SPACE, index, **COST).drop(columns="score") for index in range(2)]
    rng = np.random.default_rng(0)
    rated = [table.assign(score=1 / table["macs"] ** 0.5 + 0.001 * rng.random(len(table))) for table in tables]
    evaluation = Evaluation(
        BUDGET,
        scorer,
        ("kl",) if searches.guided else ("accuracy", "macs"),
        trials,
        seed,
        controls={"largest_macs": WITHIN[0]},
        guide=Guide(rated, exact_front(rated), 8, "tpe", "dimensions") if searches.guided else None,
        stage=stage,
    )
    log = searches.search(evaluation)
    return log.frame(), log.archs


def test_the_space_is_of_use() -> None:
    assert 40 < len(WITHIN) < SPACE.size < 1000


@every
def test_every_arch_keeps_the_budget_and_comes_once(engine: str | Engine) -> None:
    rows, archs = search(engine, 24)
    found = evaluated(rows)
    assert len(found) == 24 == found["key"].nunique()
    assert (found["macs"] <= CAPS["macs"]).all() and found["feasible"].all()
    assert {arch.key for arch in WITHIN} >= set(found["key"]) and set(found["key"]) <= set(archs)
    for row in found.to_dict("records"):
        arch = archs[row["key"]]
        assert (row["macs"], row["params"]) == SPACE.cost(arch, **COST)
        assert row["accuracy"] == pytest.approx(toy(arch)["accuracy"])
    assert rows["number"].tolist() == list(range(len(rows))) and rows["kind"].iloc[-1] == "control"


@every
def test_the_same_seed_finds_the_same(engine: str | Engine) -> None:
    pd.testing.assert_frame_equal(search(engine, 15)[0], search(engine, 15)[0])


@pytest.mark.parametrize("engine", ["nsga2", "random"])
def test_another_seed_draws_others(engine: str) -> None:
    assert search(engine, 15)[0]["key"].tolist() != search(engine, 15, seed=1)[0]["key"].tolist()


@every
@pytest.mark.parametrize("stopped", [1, 11])
def test_it_goes_on_where_it_stopped(engine: str | Engine, stopped: int, tmp_path: Path) -> None:
    left = [stopped]

    def mortal(arch: Arch) -> dict[str, float]:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return toy(arch)

    whole, _ = search(engine, 16, folder=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        search(engine, 16, scorer=mortal, folder=tmp_path / "part")
    left[0] = 100
    rows, archs = search(engine, 16, scorer=mortal, folder=tmp_path / "part")
    assert left[0] == 100 - (16 + 1 - stopped)  # nothing is scored twice; one control
    pd.testing.assert_frame_equal(rows, whole)
    texts = [(tmp_path / name / "search" / "trials.csv").read_text() for name in ("whole", "part")]
    assert texts[0] == texts[1] and set(evaluated(rows)["key"]) <= set(archs)


@every
def test_given_enough_trials_it_finds_the_best(engine: str | Engine) -> None:
    rows, _ = search(engine, len(WITHIN))
    best = max(WITHIN, key=lambda arch: toy(arch)["accuracy"])
    found = evaluated(rows)
    assert len(found) == len(WITHIN) and found.loc[found["accuracy"].idxmax(), "key"] == best.key


@pytest.mark.parametrize(
    ("engine", "trials"), [("nsga2", 200), ("coarse", 100), ("reinforce", 100), (Climber(), 200)], ids=str
)
def test_who_looks_at_scores_beats_drawing_at_random(engine: str | Engine, trials: int) -> None:
    """Of 46,656 archs of 12 dimensions, by what is best among the first.

    With five seeds and 100 trials, drawing at random has 0.086 (standard deviation 0.012) and REINFORCE 0.117 (0.005).
    """
    space = nas_kd.load_space("digits")
    variables = SearchVariables(space)
    budget = Budget(space, COST, {"macs": int(0.7 * space.cost(space.largest(), **COST).macs)})

    def best(engine: str | Engine, seed: int) -> float:
        def scorer(arch: Arch) -> dict[str, float]:
            return toy(arch, variables)

        tables = [rows_of(space, index, **COST).assign(score=0.0) for index in range(len(space.stages))]
        guide = Guide(tables, pd.DataFrame(), 8, "tpe", "dimensions")  # reinforce adds scores up, and does not ask them
        log = search_engine(engine).search(Evaluation(budget, scorer, ("accuracy", "macs"), trials, seed, guide=guide))
        return float(evaluated(log.frame())["accuracy"].max())

    ours, random = (np.mean([best(one, seed) for seed in range(2)]) for one in (engine, "random"))
    assert ours > random


def test_more_trials_than_archs_end(tmp_path: Path) -> None:
    rows, _ = search(Climber(), len(WITHIN) + 50)
    assert len(evaluated(rows)) == len(WITHIN)


class Wrong:
    name = "wrong"

    def propose(self, problem: Problem, rows: Sequence[object]) -> Point | None:
        return (99,)


def test_what_is_no_point_is_refused() -> None:
    with pytest.raises(SettingError, match="wrong.propose"):
        search(Wrong(), 3)


def test_a_new_engine_searches_by_being_passed_in(data: Data, tmp_path: Path) -> None:
    net = Supernet(SPACE, num_classes=3, in_chans=1, seed=0)
    how: dict[str, Any] = {"max_macs": "70%", "trials": 12, "epochs": 0, "run": tmp_path, "calibration_images": 16}
    result = nas_kd.search(net, None, data, engine=Climber(), **how)
    assert result.engine == "climber_1" and SPACE.cost(result.best, **COST).macs <= CAPS["macs"]
    scored = evaluated(result.frame())
    assert len(scored) == 12 and result.best.key in set(result.frame()["key"])  # a control may win
    again = nas_kd.search(net, None, data, engine=Climber(), **how)
    assert again.best == result.best and again.engine == "climber_1"
    with pytest.raises(SettingError, match="climber_2"):  # its settings are in its name, and so in the record
        nas_kd.search(net, None, data, engine=Climber(2), **how)


def test_the_table_names_each_file_of_the_folder() -> None:
    files = {path.stem for path in Path(str(engines.__file__)).parent.glob("[!_]*.py")}
    assert set(ENGINES) == files
    assert {name: kind().name for name, kind in ENGINES.items()} == {name: name for name in files}
    assert names_in_tables("searcher/engines", "type[SearchEngine]") == tuple(ENGINES)  # read without importing them


def test_an_unknown_engine_is_refused_before_anything_is_imported() -> None:
    with pytest.raises(SettingError, match="search.engine='nsga3'.*nsga2"):
        SearchConfig(engine="nsga3")
    with pytest.raises(SettingError, match="search.storage=.*search.engine=coarse"):
        SearchConfig(engine="coarse", storage="postgresql://me@here/trials")
    assert SearchConfig(engine="nsga2", storage="postgresql://me@here/trials").engine == "nsga2"


def test_an_engine_has_a_name_of_its_own(data: Data) -> None:
    class Taken(Climber):
        name = "nsga2"  # type: ignore[assignment]

    net = Supernet(SPACE, num_classes=3, in_chans=1, seed=0)
    with pytest.raises(SettingError, match="search.engine"):
        nas_kd.search(net, None, data, engine=Taken(), max_macs="70%", trials=3, epochs=0)
