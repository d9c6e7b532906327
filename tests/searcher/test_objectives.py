"""A search of several objectives ends with the front of its archs, and refuses what is none."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import nas_kd
from nas_kd import search
from nas_kd.data import Data
from nas_kd.errors import SettingError
from nas_kd.pipeline.config import Config
from nas_kd.runs.run import Run
from nas_kd.runtime.device import Runtime
from nas_kd.runtime.seeds import seed_for
from nas_kd.searcher.budget import Budget
from nas_kd.searcher.chains import warm_choices
from nas_kd.searcher.config import SearchConfig
from nas_kd.searcher.finalists import controls
from nas_kd.searcher.infeasible import no_feasible_arch
from nas_kd.searcher.objectives import checked_objectives
from nas_kd.searcher.trials import evaluated
from nas_kd.solve import exact_front
from nas_kd.solve.pareto import nondominated
from nas_kd.space import Arch, ElasticSpace
from nas_kd.space.rows import choices_of
from nas_kd.supernet import Supernet
from nas_kd.teacher import Teacher, ViewCache
from nas_kd.train.teacher_config import TeacherConfig

VERB = import_module("nas_kd.searcher.search")  # as an attribute of the package it is the function
Search = Callable[..., Any]


@pytest.mark.parametrize("high", [(), ("b",), ("a", "c")])
def test_unbeaten_rows_by_brute_force(high: tuple[str, ...]) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.integers(0, 6, (200, 3)), columns=list("abc")).astype(float)
    frame.loc[::17, "b"] = np.nan
    signs = np.array([-1.0 if name in high else 1.0 for name in "abc"])
    known = frame.dropna()
    values = known.to_numpy() * signs
    free = [row for row in values if not ((values <= row).all(1) & (values < row).any(1)).any()]
    found = nondominated(frame, ["a", "b", "c"], high)
    assert sorted(map(tuple, found.to_numpy() * signs)) == sorted({tuple(row) for row in free})
    assert (found["a"] * signs[0]).is_monotonic_increasing and not found.duplicated().any()


def test_guidance_by_stored_answers_alone_is_refused_before_anything_runs(
    net: Supernet,
    tables: list[pd.DataFrame],
    teacher: Teacher,
    data: Data,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = teacher.cached(data, Run(tmp_path / "answers"), epochs=1)
    assert isinstance(kept, ViewCache)
    answers = ViewCache.load(kept.folder)

    def runs(*rest: Any, **more: Any) -> None:
        raise AssertionError("the search has begun")

    for name in ("usable_ratings", "exact_front", "SubnetScorer"):
        monkeypatch.setattr(VERB, name, runs)
    with pytest.raises(SettingError, match=r"search\.objectives=\['p_tg'\].*without the teacher's network"):
        search(net, answers, data, tables, objectives=["p_tg"], run=tmp_path / "run")
    assert not (tmp_path / "run" / "search").exists()


class _Planted:
    """Lower KL for more channels, higher accuracy for deeper archs, and a little of no meaning."""

    def __init__(self, *rest: Any, **more: Any) -> None: ...

    def __call__(self, arch: Arch) -> dict[str, float]:
        noise = np.random.default_rng(seed_for(0, arch.key)).random()
        channels = sum(stage.width * sum(mid for (mid,) in stage.layers) for stage in arch.stages)
        depth = sum(len(stage.layers) for stage in arch.stages)
        more = {"accuracy": depth / 10 + 0.05 * noise, "agreement": 0.5, "loss": noise}
        return {"kl": 3.0 - channels / 40 + 0.4 * noise} | more


@pytest.fixture
def wanted(
    net: Supernet,
    teacher: Teacher,
    data: Data,
    tables: list[pd.DataFrame],
    runtime: Runtime,
    monkeypatch: pytest.MonkeyPatch,
) -> Search:
    """Search with planted scores, and without trainings."""
    monkeypatch.setattr(VERB, "SubnetScorer", _Planted)

    def call(*objectives: str, engine: str = "exact", **changes: Any) -> Any:
        settings: dict[str, Any] = {
            "max_macs": "60%",
            "trials": 60,
            "top": 2,
            "epochs": 0,
            "tuned": 0,
            "runtime": runtime,
            "engine": engine,
            "objectives": objectives or None,
        } | changes
        guided = engine == "exact"
        return search(net, teacher if guided else None, data, tables if guided else None, **settings)

    return call


@pytest.mark.parametrize("engine", ["exact", "nsga2"])
@pytest.mark.parametrize("costs", [(), ("macs",), ("params",), ("latency_ms", "macs")])
def test_the_front_is_of_the_objectives(wanted: Search, engine: str, costs: tuple[str, ...], tmp_path: Path) -> None:
    score = "kl" if engine == "exact" else "accuracy"
    found = wanted(score, *costs, engine=engine, run=tmp_path)
    costs, given = costs or ("macs",), (score, *costs)
    rows = found.frame().dropna(subset=[score])
    assert len(rows[rows["kind"] != "control"]["key"].unique()) == 60
    values = np.column_stack([rows[score] * (1 if score == "kl" else -1), *(rows[name] for name in costs)])
    free = [not ((values <= row).all(1) & (values < row).any(1)).any() for row in values]
    front = found.front()
    assert set(front["key"]) == set(rows[free]["key"]) and front["key"].is_unique
    assert front[next(c for c in ("macs", "params", "latency_ms") if c in costs)].is_monotonic_increasing
    assert ("latency_ms" in rows) == ("latency_ms" in costs)
    if "latency_ms" in costs:
        known = pd.read_csv(tmp_path / "latency.csv", dtype={"key": str}).set_index("key")["median_ms"]
        assert rows["latency_ms"].tolist() == pytest.approx(known[rows["key"]].tolist())
    again = wanted(*given, engine=engine, run=tmp_path)
    assert again.objectives == found.objectives == given
    pd.testing.assert_frame_equal(again.front(), front, check_dtype=False)
    kept = pd.read_csv(tmp_path / "search/pareto.csv", dtype={"key": str})
    assert kept["key"].tolist() == front["key"].tolist()


def test_two_scores_need_no_cost(wanted: Search) -> None:
    found = wanted("accuracy", "kl")
    rows = found.frame().dropna(subset=["kl"])
    values = np.column_stack([rows["kl"], -rows["accuracy"]])
    free = [not ((values <= row).all(1) & (values < row).any(1)).any() for row in values]
    assert set(found.front()["key"]) == set(rows[free]["key"]) and 0 < sum(free) < len(rows) / 2


def test_a_result_that_does_not_know_its_objectives_has_the_usual(wanted: Search, tmp_path: Path) -> None:
    for engine, usual in (("exact", ("kl",)), ("nsga2", ("accuracy", "macs"))):
        found = wanted(engine=engine, run=tmp_path / engine)
        best = tmp_path / engine / "search/best.json"
        best.write_text(json.dumps({k: v for k, v in json.loads(best.read_text()).items() if k != "objectives"}))
        again = wanted(engine=engine, run=tmp_path / engine)
        assert again.objectives == found.objectives == usual and again.best == found.best


def test_a_second_objective_finds_more_of_the_front(wanted: Search, space: ElasticSpace, cost: dict[str, int]) -> None:
    """Of all feasible archs that none beats in KL and MACs, more are found than by KL alone."""
    scorer, cap = _Planted(), wanted().budget["macs"]
    known = [{"key": a.key, "macs": space.cost(a, **cost).macs} | scorer(a) for a in space]
    table = pd.DataFrame(known)
    front = set(nondominated(table[table["macs"] <= cap], ["macs", "kl"])["key"])
    shares = {
        names: np.mean([len(front & set(wanted(*names, seed=seed).trials["key"])) / len(front) for seed in range(2)])
        for names in (("kl",), ("kl", "macs"))
    }
    # over six seeds 0.67 with a deviation of 0.09, and 1.0 in each
    assert len(front) >= 8 and shares["kl", "macs"] > shares["kl",] + 0.1, shares


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_it_goes_on_with_the_same_proposals(
    wanted: Search, sampler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = wanted("kl", "macs", sampler=sampler, run=tmp_path / "whole")
    for at in (7, 33):
        _interrupted(at, monkeypatch, lambda: wanted("kl", "macs", sampler=sampler, run=tmp_path / "cut"))
    assert wanted("kl", "macs", sampler=sampler, run=tmp_path / "cut").best == whole.best
    one, other = (tmp_path / name / "search/trials.csv" for name in ("whole", "cut"))
    assert one.read_bytes() == other.read_bytes()
    with pytest.raises(SettingError, match=r"search\.objectives"):
        wanted("kl", "params", sampler=sampler, run=tmp_path / "cut")


def _interrupted(at: int, monkeypatch: pytest.MonkeyPatch, begin: Callable[[], Any]) -> None:
    calls, real = 0, _Planted.__call__

    def fails(self: Any, arch: Arch) -> dict[str, float]:
        nonlocal calls
        calls += 1
        if calls == at:
            raise KeyboardInterrupt
        return real(self, arch)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(_Planted, "__call__", fails)
        begin()


@pytest.mark.parametrize(
    ("engine", "objectives"),
    [("exact", ()), ("exact", ("kl", "macs")), ("nsga2", ()), ("random", ("accuracy", "params"))],
)
def test_a_helper_takes_up_what_was_begun(
    wanted: Search, engine: str, objectives: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads the rows of the first process, with whatever is an objective, and does the rest."""
    how: dict[str, Any] = {"engine": engine, "run": tmp_path}
    _interrupted(15, monkeypatch, lambda: wanted(*objectives, **how))
    begun = len(pd.read_csv(tmp_path / "search/trials.csv"))
    helped = wanted(*objectives, **how, worker=True).trials
    assert len(evaluated(helped)) == 60
    found = wanted(*objectives, **how)
    rows = evaluated(found.trials)
    assert 14 <= begun < len(rows) == rows["key"].nunique() == 60


def test_latencies_are_of_one_machine_and_setting(
    wanted: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _interrupted(20, monkeypatch, lambda: wanted("kl", "latency_ms", run=tmp_path))
    kept = (tmp_path / "search/trials.csv").read_text()
    with pytest.raises(SettingError, match=r"search\.objectives=.*measured on one otherwise idle machine"):
        wanted("kl", "latency_ms", run=tmp_path, worker=True)
    with pytest.raises(SettingError, match=r"search\.objectives=.*measured on one otherwise idle machine"):
        wanted("kl", "latency_ms", run=tmp_path, storage="postgresql://me@nowhere/none")
    with monkeypatch.context() as patch, pytest.raises(SettingError, match=r"latency\.threads=7"):
        patch.setattr("torch.get_num_threads", lambda: 7)
        wanted("kl", "latency_ms", run=tmp_path)
    assert wanted("kl", "latency_ms", run=tmp_path).trials["latency_ms"].gt(0).sum() >= 60
    assert (tmp_path / "search/trials.csv").read_text().startswith(kept)


@pytest.mark.parametrize("engine", ["exact", "nsga2", "coarse", "random"])
def test_a_latency_that_no_large_arch_keeps_is_refused_with_the_fastest(
    wanted: Search, space: ElasticSpace, data: Data, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    cost = {"resolution": data.resolution, "in_chans": data.in_chans, "num_classes": data.num_classes}

    def timed(budget: Budget, arch: Arch) -> float:
        return float(budget._known.setdefault(arch.key, float(space.cost(arch, **cost).macs)))

    monkeypatch.setattr(Budget, "latency", timed)  # as many milliseconds as MACs
    least, most = (float(space.cost(arch, **cost).macs) for arch in (space.smallest(), space.largest()))
    given = {"max_macs": None, "min_macs": math.ceil(0.8 * most), "engine": engine, "trials": 20}
    with pytest.raises(SettingError, match=r"search\.max_latency_ms=.*the fastest of \d+ archs") as refused:
        wanted(**given, max_latency_ms=2 * least)
    named = float(str(refused.value.expected).split(" ")[0])
    assert 0.8 * most * 0.999 <= named <= most
    found = wanted(**given, max_latency_ms=1.1 * named)
    assert 0.8 * most <= space.cost(found.best, **cost).macs <= 1.1 * named


def test_warm_points_come_from_all_over_the_front(
    space: ElasticSpace, cost: dict[str, int], tables: list[pd.DataFrame]
) -> None:
    budget = Budget(space, cost, {"macs": 10**9})
    coded = [table.assign(choice=choices_of(space, index, table)) for index, table in enumerate(tables)]
    exact = exact_front(tables, budget="macs").sort_values("score")
    assert len(exact) > 12
    chains = [tuple(row) for row in warm_choices(exact, coded, budget, len(exact))]
    best = [chains.index(tuple(row)) for row in warm_choices(exact, coded, budget, 5)]
    spread = [chains.index(tuple(row)) for row in warm_choices(exact, coded, budget, 5, spread=True)]
    assert best == [0, 1, 2, 3, 4]
    assert spread[0] == 0 and spread[-1] == len(exact) - 1 and min(np.diff(spread)) >= len(exact) // 5


@pytest.mark.parametrize(
    ("names", "engine", "said"),
    [
        (["macs"], "exact", r"objectives=\['macs'\].*with kl or accuracy"),
        (["kl", "kl"], "exact", "different names"),
        (["kl", "flops"], "exact", r"'flops'.*kl, accuracy, macs, params, latency_ms"),
        (["kl", "macs"], "nsga2", "needs a teacher and search.engine=exact"),
        (["accuracy", "params"], "coarse", "null with coarse"),
    ],
)
def test_what_is_no_objective_is_refused_with_the_settings(names: list[str], engine: str, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        checked_objectives(names, engine)
    with pytest.raises(SettingError, match=said):
        Config(teacher=TeacherConfig(model="cifar_resnet8"), search=SearchConfig(engine=engine, objectives=names))


def test_a_word_is_no_list(wanted: Search) -> None:
    with pytest.raises(SettingError, match=r"search\.objectives='kl'.*a list of texts"):
        wanted(objectives="kl")


@pytest.mark.parametrize(("share", "floor"), [(0.3, None), (0.6, 0.55), (1.0, None)])
def test_size_controls_keep_a_latency(
    space: ElasticSpace, data: Data, monkeypatch: pytest.MonkeyPatch, share: float, floor: float | None
) -> None:
    cost = {"resolution": data.resolution, "in_chans": data.in_chans, "num_classes": data.num_classes}
    every = sorted(space.cost(arch, **cost).macs for arch in space)
    monkeypatch.setattr(Budget, "latency", lambda budget, arch: float(space.cost(arch, **cost).macs))
    cap = every[0] + share * (every[-1] - every[0])
    floors = {} if floor is None else {"macs": every[-1] * floor}
    budget = Budget(space, cost, {}, max_latency_ms=cap, lower=floors)
    found = controls(budget, seed=0)
    assert all(budget.fits(arch) for arch in found.values())
    most = max(macs for macs in every if macs <= cap)
    assert space.cost(found["largest_macs"], **cost).macs >= 0.995 * most
    assert space.cost(found["largest_params"], **cost).params >= space.cost(found["random"], **cost).params


@pytest.mark.parametrize(
    ("upper", "lower", "named"),
    [
        ({"macs": 0.5}, {}, ["search.max_macs"]),
        ({"macs": 1e6, "params": 0.5}, {}, ["search.max_params"]),
        ({"macs": 1e6}, {"params": 1e6}, ["search.min_params"]),
        ({"macs": 0.5, "params": 0.5}, {}, ["search.max_macs", "search.max_params"]),
        ({"macs": 1e6}, {}, ["search.max_macs"]),  # each is within it: there is nothing else to name
    ],
)
def test_the_bound_that_none_kept_is_named(
    space: ElasticSpace, data: Data, upper: dict[str, float], lower: dict[str, float], named: list[str]
) -> None:
    cost = {"resolution": data.resolution, "in_chans": data.in_chans, "num_classes": data.num_classes}
    smallest, largest = (space.cost(arch, **cost) for arch in (space.smallest(), space.largest()))
    caps = {name: int(times * getattr(smallest, name)) for name, times in upper.items()}
    floors = {name: int(times * getattr(largest, name)) for name, times in lower.items()}
    budget = Budget(space, cost, caps, lower=floors)
    for seed in range(5):
        budget.affordable(space.sample(seed))
    error = no_feasible_arch(budget)
    assert error.field == ", ".join(named)
    if "search.max_params" in named:
        assert f"has {smallest.params:,} parameters" in error.expected
    if "search.min_params" in named:
        assert f"the largest of {space.name} has {largest.params:,} parameters" in error.expected


def test_a_teachers_space_says_how_to_get_smaller(data: Data) -> None:
    teacher = nas_kd.load_teacher("cifar_resnet8", num_classes=data.num_classes, in_chans=data.in_chans).bind(data)
    space = nas_kd.teacher_space(teacher, resolution=data.resolution)
    cost = {"resolution": data.resolution, "in_chans": data.in_chans, "num_classes": data.num_classes}
    budget = Budget(space, cost, {"macs": 10})
    budget.affordable(space.sample(0))
    error = no_feasible_arch(budget)
    smallest, largest = (space.cost(arch, **cost).macs for arch in (space.smallest(), space.largest()))
    assert f"has {smallest:,} MACs, {100 * smallest / largest:.3g} % of the largest" in error.expected
    assert "also cut the residual stream (derive.residual=true)" in error.hint


def test_latencies_of_another_make_of_device_are_measured_anew(space: ElasticSpace, data: Data, tmp_path: Path) -> None:
    cost = {"resolution": data.resolution, "in_chans": data.in_chans, "num_classes": data.num_classes}
    arch, run = space.smallest(), Run(tmp_path)
    first = Budget(space, cost, {}, run=run).latency(arch)
    assert Budget(space, cost, {}, run=run).latency(arch) == first
    kept = pd.read_csv(tmp_path / "latency.csv", dtype={"key": str})
    kept.assign(device="another make", median_ms=1e9).to_csv(tmp_path / "latency.csv", index=False)
    assert Budget(space, cost, {}, run=run).latency(arch) < 1e9
