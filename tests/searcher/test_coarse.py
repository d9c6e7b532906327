"""Coarse-to-fine search: the grid, the budget, distinct archs, resume, and that it finds what is planted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from elastic_spaces import ELASTIC, ENDS, PLAIN

from nas_kd.errors import SettingError
from nas_kd.searcher.engine import Problem
from nas_kd.searcher.engines.coarse import SHARE, Coarse
from nas_kd.searcher.grid import GRID, coarse_grid
from nas_kd.searcher.one_by_one import one_by_one
from nas_kd.searcher.optuna import refine
from nas_kd.searcher.variables import Point, SearchVariables
from nas_kd.space import Candidate, ElasticSpace, load_space

SHAPE = {"in_chans": 1, "num_classes": 4}


class Judge:
    """Rough scores of archs, and how often each arch was asked for."""

    def __init__(self, space: ElasticSpace, share: float = 0.6) -> None:
        self.space, self.variables, self.calls = space, SearchVariables(space), list[str]()
        self.most = space.cost(space.largest(), **SHAPE).macs * share

    def macs(self, point: Point) -> int:
        return self.space.cost(self.variables.decode(point), **SHAPE).macs

    def affordable(self, point: Point) -> bool:
        return self.macs(point) <= self.most

    def accuracy(self, point: Point) -> float:
        point = self.variables.canonical(point)
        weights = np.random.default_rng(5).random(len(point))
        return float(sum(w * i / n for w, i, n in zip(weights, point, self.variables.sizes, strict=True)))

    def __call__(self, point: Point) -> Mapping[str, float]:
        self.calls.append(self.variables.decode(point).key)
        return {"accuracy": self.accuracy(point), "macs": self.macs(point)}

    def problem(self, trials: int, seed: int = 0, objectives: tuple[str, ...] = ("accuracy", "macs")) -> Problem:
        return Problem(self.variables, self.affordable, self.macs, objectives, trials, seed)

    def search(self, trials: int, seed: int = 0, **more: Any) -> list[dict[str, Any]]:
        return one_by_one(Coarse(), self.problem(trials, seed), self, **more)


@pytest.mark.parametrize("space", ELASTIC, ids=lambda space: space.name)
def test_distinct_archs_within_the_budget(space: ElasticSpace) -> None:
    judge, seen = Judge(space), []
    within = sum(space.cost(arch, **SHAPE).macs <= judge.most for arch in space)
    rows = judge.search(60, record=seen.append)
    assert rows == seen and [row["number"] for row in rows] == list(range(len(rows)))
    assert len(judge.calls) == len(set(judge.calls)) == len(rows) == min(60, within)
    assert all(row["macs"] <= judge.most for row in rows)
    coarse = [row["kind"] == "coarse" for row in rows]
    assert coarse == sorted(coarse, reverse=True) and 1 <= sum(coarse) <= math.ceil(SHARE * 60)


def test_the_grid_moves_whole_networks() -> None:
    """Widths of stem and stages, depths, inner widths, head and input size each move as one."""
    grid = coarse_grid(SearchVariables(ENDS), lambda point: True, Judge(ENDS).macs, 10_000)
    archs = [SearchVariables(ENDS).decode(point) for point in grid]
    wanted = [
        ENDS.arch(
            tuple(
                Candidate(stage.widths[wide], (stage.groups()[0][mid],) * stage.depths[deep % len(stage.depths)])
                for stage in ENDS.stages
            ),
            stem=ENDS.stem.choices()[wide],
            head=ENDS.head.choices()[head],
            resolution=size,
        )
        for wide, mid, deep, head, size in product((0, 1), (0, 1), (0, 1), range(3), ENDS.resolutions)
    ]
    assert set(archs) == set(wanted) and len(archs) == len(wanted) == 72
    macs = [Judge(ENDS).macs(point) for point in grid]
    assert macs == sorted(macs) and archs[0] == ENDS.smallest() and archs[-1] == ENDS.largest()
    thinned = coarse_grid(SearchVariables(ENDS), lambda point: True, Judge(ENDS).macs, 7)
    assert len(thinned) == 7 and thinned[0] == grid[0] and thinned[-1] == grid[-1] and set(thinned) <= set(grid)


def test_a_grid_of_many_kinds_is_thinned_out() -> None:
    space = load_space("attentive_nas")
    grid = coarse_grid(SearchVariables(space), lambda point: True, Judge(space).macs, 10**6)
    assert 100 < len(grid) <= GRID


def test_a_resumed_search_is_the_same_search(tmp_path: Any) -> None:
    straight = Judge(ENDS).search(50, seed=3)
    for cut in (1, 12, 30, 49):
        pd.DataFrame(straight[:cut]).to_csv(tmp_path / "trials.csv", index=False)
        done = pd.read_csv(tmp_path / "trials.csv").to_dict("records")
        judge = Judge(ENDS)
        again = judge.search(50, seed=3, done=done)
        assert again[cut:] == straight[cut:] and len(judge.calls) == 50 - cut
    assert Judge(ENDS).search(50, seed=4) != straight


def test_latency_is_asked_of_proposals_only_and_never_exceeded() -> None:
    judge, asked = Judge(PLAIN), []

    def feasible(point: Point) -> bool:
        asked.append(point)
        return judge.macs(point) % 3 != 0

    rows = judge.search(20, feasible=feasible)
    assert {row["kind"] for row in rows} >= {"coarse", "infeasible"} and len(judge.calls) == 20
    assert all((row["macs"] % 3 != 0) if row["feasible"] else "accuracy" not in row for row in rows)
    assert len(asked) < 3 * len(rows)
    nothing = judge.search(5, feasible=lambda point: False)
    assert {row["kind"] for row in nothing} == {"infeasible"}


def test_it_finds_more_than_random_draws() -> None:
    space = load_space("resnet_cifar")
    means = {}
    for engine in ("coarse", "nsga2", "random"):
        found = []
        for seed in range(3):
            judge = Judge(space, share=0.4)
            if engine == "coarse":
                rows = judge.search(80, seed=seed)
            else:
                rows = refine(
                    judge.variables.sizes,
                    judge,
                    constraints=lambda p, j=judge: {"macs": j.macs(p) / j.most - 1.0},
                    objective=("accuracy", "macs"),
                    maximise=("accuracy",),
                    canonical=judge.variables.canonical,
                    trials=80,
                    seed=seed,
                    sampler=engine,
                )
            assert len(judge.calls) == len(set(judge.calls)) == 80
            found.append(max(row["accuracy"] for row in rows if "accuracy" in row))
        means[engine] = np.mean(found)
    assert means["coarse"] > means["random"] and means["nsga2"] > means["random"], means


def test_nan_is_never_a_parent() -> None:
    judge = Judge(PLAIN)

    def broken(point: Point) -> dict[str, float]:
        return {"accuracy": math.nan if judge.macs(point) % 2 else 0.5, "macs": 0}

    rows = one_by_one(Coarse(), judge.problem(30), broken)
    assert len(rows) == 30


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"trials": 0}, "trials"),
        ({"objectives": ("nothing",)}, "objective"),
        ({"done": [{"number": 1, "kind": "fine"}]}, "done"),
        ({"done": [{"number": 1, "kind": "fine", **{f"i_{i}": 0 for i in range(1, 20)}}]}, "done"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, Any], field: str) -> None:
    judge = Judge(PLAIN)
    done = change.pop("done", [])
    with pytest.raises(SettingError) as caught:
        one_by_one(Coarse(), judge.problem(**{"trials": 3} | change), judge, done=done)
    assert caught.value.field == field
