"""The search follows its scores, keeps its budget, and lets a short training decide among the best and controls."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from fractions import Fraction
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from textures import SPACE

from nas_kd import load_student, retrain, search, train_supernet
from nas_kd.data import Data
from nas_kd.errors import SettingError
from nas_kd.runtime.device import Runtime
from nas_kd.runtime.seeds import seed_for
from nas_kd.searcher.budget import Budget, lower_bounds, upper_bounds
from nas_kd.searcher.finalists import choose_finalists, controls
from nas_kd.searcher.variables import SearchVariables
from nas_kd.space import Arch, ElasticSpace
from nas_kd.supernet import Supernet
from nas_kd.teacher import Teacher
from nas_kd.train.network import predict

VERB = import_module("nas_kd.searcher.search")  # as an attribute of the package it is the function
Tables = list[pd.DataFrame]
SHORT = {"batch_size": 16, "lr": 0.1, "warmup_epochs": 0.25}


def chain_score(space: ElasticSpace, tables: Tables, arch: Arch) -> float:
    """Add up an arch's rows by hand."""
    total, width = 0.0, space.stem.width
    for table, code, candidate in zip(tables, space.encode([arch])[0], arch.stages, strict=True):
        row = table[(table["in_width"] == width) & (table["candidate"] == code)]
        total, width = total + float(row["score"].iloc[0]), candidate.width
    return total


@pytest.mark.parametrize(("macs", "params"), [("50%", None), (None, "40%"), ("70%", "50%"), (None, None)])
def test_caps_and_controls_against_the_whole_space(
    macs: str | None, params: str | None, space: ElasticSpace, data: Data, cost: dict[str, int], tables: Tables
) -> None:
    caps = upper_bounds(space, data, macs, params)
    largest = space.cost(space.largest(), **cost)
    for name, share in (("macs", macs), ("params", params)):
        wanted = None if share is None else getattr(largest, name) * int(share[:-1]) // 100
        assert caps.get(name) == wanted
    found = controls(Budget(space, cost, caps), seed=0)
    within = [c for c in (space.cost(arch, **cost) for arch in space) if _keeps(c, caps)]
    assert 0 < len(within) <= space.size
    for role, arch in found.items():
        assert _keeps(space.cost(arch, **cost), caps), role
    for name in ("macs", "params"):
        best = max(getattr(c, name) for c in within)
        assert getattr(space.cost(found[f"largest_{name}"], **cost), name) >= best * (1 - 2e-4)


def _keeps(cost: Any, caps: dict[str, int]) -> bool:
    return all(getattr(cost, name) <= cap for name, cap in caps.items())


def test_a_budget_below_the_smallest_names_it(space: ElasticSpace, data: Data, cost: dict[str, int]) -> None:
    least = space.cost(space.smallest(), **cost)
    assert upper_bounds(space, data, least.macs, least.params) == {"macs": least.macs, "params": least.params}
    for name, kw in (("macs", (least.macs - 1, None)), ("params", (None, least.params - 1))):
        with pytest.raises(SettingError, match=rf"search.max_{name}=.*at least .*% \({getattr(least, name):,} "):
            upper_bounds(space, data, *kw)


def test_a_budget_that_is_a_range_is_kept(
    run_search: Callable[..., Any],
    space: ElasticSpace,
    cost: dict[str, int],
    tables: Tables,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    class Planted(_RandomScorer):
        def __call__(self, arch: Arch) -> dict[str, float]:
            return {"kl": -chain_score(space, tables, arch), "accuracy": 0.5, "agreement": 0.5}

    monkeypatch.setattr(VERB, "SubnetScorer", Planted)  # wants small ones, so that the smallest allowed cost binds
    largest = space.cost(space.largest(), **cost)
    ranges: dict[str, Any] = {
        "max_macs": math.floor(0.7 * largest.macs),
        "min_macs": math.ceil(0.4 * largest.macs),
        "min_params": math.ceil(0.3 * largest.params),
    }
    result = run_search(**ranges, epochs=0, trials=60, run=tmp_path / "run")

    def keeps(arch: Arch) -> bool:
        found = space.cost(arch, **cost)
        return 0.4 * largest.macs <= found.macs <= 0.7 * largest.macs and found.params >= 0.3 * largest.params

    by_key = {arch.key: arch for arch in space}
    frame = result.frame()
    scored = frame[frame["kind"].isin(["warm", "trial", "random"])]
    assert 0 < len(scored) and all(keeps(by_key[key]) for key in scored["key"])
    controls_ = frame[frame["kind"] == "control"]
    assert all(keeps(by_key[row.key]) == row.feasible for row in controls_.itertuples())
    feasible = [arch for arch in space if keeps(arch)]
    assert len(scored) == min(60, len(feasible))
    ordered = sorted(feasible, key=lambda arch: chain_score(space, tables, arch))
    warm = frame[frame["kind"] == "warm"]
    assert by_key[warm["key"].iloc[0]] == ordered[0]  # the best chain in the range is looked at first
    assert json.loads((tmp_path / "run/search/best.json").read_text())["at_least"].keys() == {"macs", "params"}
    nsga2 = run_search(engine="nsga2", **ranges, epochs=0, trials=20, training={"method": "ce"})
    assert all(keeps(by_key[key]) for key in nsga2.frame()["key"][nsga2.frame()["kind"] == "trial"])


def test_ranges_that_nobody_keeps_are_told_what_is_feasible(
    space: ElasticSpace, data: Data, cost: dict[str, int]
) -> None:
    every = [space.cost(arch, **cost) for arch in space]
    most = max(c.macs for c in every)
    assert lower_bounds(space, data, {}, most, None) == {"macs": most}
    with pytest.raises(SettingError, match=f"search.min_macs={most + 1}.*at most {most:,} MACs"):
        lower_bounds(space, data, {}, most + 1, None)
    with pytest.raises(SettingError, match="search.min_macs.*search.max_macs"):
        lower_bounds(space, data, {"macs": most // 2}, most // 2 + 1, None)
    few = sorted(c.params for c in every)[3]  # the smallest cannot have most MACs
    wanted = max(c.macs for c in every if c.params <= few)
    with pytest.raises(SettingError, match=f"with params <= {few} macs at most {wanted}"):
        lower_bounds(space, data, {"params": few}, "90%", None)
    least = min(c.params for c in every if c.macs >= 0.9 * most)
    with pytest.raises(SettingError, match=f"macs params at least {least}"):
        lower_bounds(space, data, {"params": few}, "90%", None)


@pytest.mark.parametrize("share", ["1e-9%", "33.3%", "50.01%"])
def test_a_floor_is_not_less_than_its_share(share: str, space: ElasticSpace, data: Data, cost: dict[str, int]) -> None:
    floors = lower_bounds(space, data, {}, share, share)
    largest, part = space.cost(space.largest(), **cost), Fraction(share[:-1]) / 100
    for name, floor in floors.items():
        assert floor - 1 < part * getattr(largest, name) <= floor, name
    budget = Budget(space, cost, {}, lower=floors)
    for arch in space:
        found = space.cost(arch, **cost)
        kept = all(getattr(found, name) >= part * getattr(largest, name) for name in floors)
        assert budget.affordable(arch) == kept
    assert floors.keys() == {"macs", "params"} and budget.affordable(space.largest())


def _trials(count: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = {
        "number": range(count),
        "kind": ["warm", "trial", "random", "trial"] * (count // 4),
        "role": None,
        "key": [f"k{n}" for n in range(count)],
        "label": "",
        "macs": 1,
        "params": 1,
        "score": rng.random(count),
        "kl": rng.random(count),
        "accuracy": rng.random(count),
        "agreement": 0.5,
        "loss": 1.0,
        "feasible": True,
    }
    frame = pd.DataFrame(rows)
    for role, key in (("largest_macs", "big"), ("largest_params", "big"), ("random", str(frame["key"].iloc[3]))):
        values = {"number": len(frame), "kind": "control", "role": role, "key": key, "kl": 9.0, "score": 9.0}
        frame = pd.concat([frame, pd.DataFrame([values | {"accuracy": 0.0, "feasible": True}])], ignore_index=True)
    bad = {"number": len(frame), "kind": "infeasible", "key": "no", "kl": np.nan, "feasible": False}
    return pd.concat([frame, pd.DataFrame([bad])], ignore_index=True)


@pytest.mark.parametrize(
    ("top", "roles"),
    [
        (1, ["kl"]),
        (2, ["kl", "score"]),
        (3, ["kl", "score", "accuracy"]),
        (5, ["kl"] * 3 + ["score", "accuracy"]),
    ],
)
def test_entrants_are_the_best_of_each_score_and_the_controls(top: int, roles: list[str]) -> None:
    rows = _trials(20)
    chosen = choose_finalists(rows, top)
    scored = rows[rows["kind"].isin(["warm", "trial", "random"])]
    assert chosen["role"].tolist()[:top] == roles
    assert chosen["key"].is_unique and "no" not in set(chosen["key"])
    assert chosen["key"].iloc[: roles.count("kl")].tolist() == scored.nsmallest(roles.count("kl"), "kl")["key"].tolist()
    assert {"big", str(rows["key"].iloc[3])} <= set(chosen["key"])
    assert len(chosen) in (top + 1, top + 2)  # two controls are one arch, and one may be among the best


@pytest.fixture
def run_search(net: Supernet, teacher: Teacher, data: Data, tables: Tables, runtime: Runtime) -> Callable[..., Any]:
    def call(**changes: Any) -> Any:
        settings: dict[str, Any] = {
            "max_macs": "60%",
            "trials": 24,
            "top": 2,
            "epochs": 1,
            "calibration_images": 32,
            "training": SHORT,
            "tuned": 0,
            "tables": tables,
            "runtime": runtime,
        }
        settings |= changes
        return search(settings.pop("net", net), teacher, data, settings.pop("tables"), **settings)

    return call


def _no_training(chosen: pd.DataFrame, *rest: Any, **more: Any) -> pd.DataFrame:
    """Let the proxy's own order decide: every entrant does equally well."""
    return chosen.assign(select_accuracy=0.5, select_agreement=0.5, short_epochs=1)


class _RandomScorer:
    """Scores of no meaning, a function of the arch and a seed."""

    seed = 0

    def __init__(self, *rest: Any, **more: Any) -> None: ...

    def __call__(self, arch: Arch) -> dict[str, float]:
        kl, accuracy, agreement = np.random.default_rng(seed_for(self.seed, arch.key)).random(3)
        return {"kl": float(kl), "accuracy": float(accuracy), "agreement": float(agreement)}


def test_random_scores_find_another_arch(
    run_search: Callable[..., Any], tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VERB, "short_training", _no_training)
    real = run_search()
    assert real.best.key == run_search().best.key  # by itself it always finds the same
    monkeypatch.setattr(VERB, "SubnetScorer", _RandomScorer)
    others = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        drawn = [table.assign(score=rng.random(len(table))) for table in tables]
        monkeypatch.setattr(_RandomScorer, "seed", seed)
        found = run_search(tables=drawn)
        others.append(found.best.key)
        assert set(found.trials["key"].dropna()) != set(real.trials["key"].dropna())
    assert sum(key != real.best.key for key in others) >= 3 and len(set(others)) >= 3


@pytest.mark.parametrize("variables", ["candidates", "dimensions"])
def test_a_planted_score_is_found(
    run_search: Callable[..., Any],
    space: ElasticSpace,
    cost: dict[str, int],
    tables: Tables,
    monkeypatch: pytest.MonkeyPatch,
    variables: str,
) -> None:
    """With a subnet score that the tables foretell, the search ends at the best of all feasible archs."""

    class Planted(_RandomScorer):
        def __call__(self, arch: Arch) -> dict[str, float]:
            return {"kl": chain_score(space, tables, arch), "accuracy": 0.5, "agreement": 0.5}

    monkeypatch.setattr(VERB, "short_training", _no_training)
    monkeypatch.setattr(VERB, "SubnetScorer", Planted)
    result = run_search(variables=variables)
    count = {"candidates": len(space.stages), "dimensions": len(SearchVariables(space).sizes)}[variables]
    assert [name for name in result.frame() if name.startswith("i_")] == [f"i_{n}" for n in range(1, count + 1)]
    feasible = [arch for arch in space if space.cost(arch, **cost).macs <= result.budget["macs"]]
    assert result.best == min(feasible, key=lambda arch: chain_score(space, tables, arch))


def test_trials_front_and_result_agree(
    run_search: Callable[..., Any], space: ElasticSpace, cost: dict[str, int], tables: Tables, tmp_path: Path
) -> None:
    result = run_search(run=tmp_path / "run")
    frame = result.frame()
    scored = frame[frame["kind"].isin(["warm", "trial", "random"])]
    assert len(scored) == scored["key"].nunique() == 24 and (scored["macs"] <= result.budget["macs"]).all()
    by_key = {arch.key: arch for arch in space}
    for _, row in frame[frame["kl"].notna()].iterrows():
        arch = by_key[row["key"]]
        assert (row["macs"], row["params"], row["label"]) == (*space.cost(arch, **cost), arch.label)
        assert row["score"] == pytest.approx(chain_score(space, tables, arch), rel=1e-12)
    front = result.front()
    assert front["macs"].is_monotonic_increasing and (front["kl"].diff()[1:] < 0).all()
    for _, row in frame[frame["kl"].notna()].iterrows():
        assert ((front["macs"] <= row["macs"]) & (front["kl"] <= row["kl"])).any()
    within = result.exact[result.exact["macs"] <= result.budget["macs"]].sort_values("score")
    warm = frame[frame["kind"] == "warm"]
    assert warm["score"].tolist() == pytest.approx(within["score"].head(len(warm)).tolist(), rel=1e-12)
    known = [(chain_score(space, tables, arch), space.cost(arch, **cost).macs) for arch in space]
    best = [min(score for score, macs in known if macs <= most) for most in result.exact["macs"]]
    assert result.exact["score"].tolist() == pytest.approx(best, rel=1e-12)
    # read back from the folder, it is the same result
    again = run_search(run=tmp_path / "run")
    assert again.best == result.best and dict(again.budget) == dict(result.budget)
    for name in ("trials", "top", "exact"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(result, name))
    stage = json.loads((tmp_path / "run/search/stage.json").read_text())
    assert stage["done"] and stage["facts"] == {"best": result.best.key, "evaluations": 24}
    assert result.best.key in set(result.top["key"]) and {"kl", "score"} <= set(result.top["role"])


@pytest.mark.parametrize("sampler", ["nsga2", "random"])
def test_a_search_that_was_cut_off_goes_on_with_the_same_proposals(
    run_search: Callable[..., Any], tmp_path: Path, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VERB, "short_training", _no_training)
    whole = run_search(sampler=sampler, run=tmp_path / "whole", trials=40)
    calls = 0
    real = VERB.SubnetScorer.__call__

    def fails(self: Any, arch: Arch) -> dict[str, float]:
        nonlocal calls
        calls += 1
        if calls in (7, 30):
            raise KeyboardInterrupt
        return real(self, arch)

    monkeypatch.setattr(VERB.SubnetScorer, "__call__", fails)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run_search(sampler=sampler, run=tmp_path / "cut", trials=40)
    found = run_search(sampler=sampler, run=tmp_path / "cut", trials=40)
    assert found.best == whole.best
    one, other = (tmp_path / name / "search/trials.csv" for name in ("whole", "cut"))
    assert one.read_bytes() == other.read_bytes()
    assert calls == 40 + 3 + 2  # none twice but those that were cut off


@pytest.mark.slow  # the default suite has the same of trainings, in train/test_many.py
@pytest.mark.usefixtures("one_thread")
def test_two_workers_give_the_numbers_of_one(run_search: Callable[..., Any], tmp_path: Path) -> None:
    for workers in (1, 2):
        run_search(run=tmp_path / str(workers), workers=workers)
    files = sorted(p.relative_to(tmp_path / "1") for p in (tmp_path / "1/search").rglob("*") if p.is_file())
    assert sum(path.name == "metrics.csv" for path in files) >= 3
    for path, workers in product(files, (1, 2)):
        if path.name != "study.journal":  # holds times
            assert (tmp_path / str(workers) / path).read_bytes() == (tmp_path / "1" / path).read_bytes(), path


def test_rounds_of_short_trainings_halve_the_finalists(run_search: Callable[..., Any], tmp_path: Path) -> None:
    """Each round is the training that stands alone at that length; who is out keeps what it had."""
    from nas_kd.searcher.finalists import lengths

    assert lengths(3, 1) == [3] and lengths(3, 2) == [2, 3] and lengths(12, 3) == [3, 6, 12]
    assert lengths(1, 5) == [1] and lengths(2, 9) == [1, 2] and lengths(5, 10**12) == [1, 2, 3, 5]

    def trained(epochs: int, **more: Any) -> pd.DataFrame:
        training = SHORT | {"warmup_epochs": epochs / 4}
        frame: pd.DataFrame = run_search(epochs=epochs, top=4, training=training, **more).top
        return frame

    found = trained(3, rounds=3, run=tmp_path / "run")
    alone = {n: trained(n, rounds=1, run=tmp_path / str(n)).set_index("key") for n in (1, 2, 3)}
    one = alone[1]
    assert found["key"].tolist() == one.index.tolist()
    assert found["first_accuracy"].tolist() == one["select_accuracy"].tolist()
    count = len(found)
    second = one.sort_values(["select_accuracy", "select_agreement"], ascending=False, kind="stable")
    second = second.index[: math.ceil(count / 2)]
    third = (
        alone[2]
        .loc[second]
        .sort_values(["select_accuracy", "select_agreement"], ascending=False, kind="stable")
        .index[: math.ceil(len(second) / 2)]
    )
    assert count > len(second) > len(third) > 1
    for _, row in found.iterrows():
        epochs = 1 + (row["key"] in second) + (row["key"] in third)
        assert row["short_epochs"] == epochs
        assert row["select_accuracy"] == alone[epochs].loc[row["key"], "select_accuracy"]
    best = json.loads((tmp_path / "run/search/best.json").read_text())["key"]
    last = alone[3].loc[third].sort_values("kl", kind="stable")  # which of two equals wins
    assert best == last.sort_values(["select_accuracy", "select_agreement"], ascending=False, kind="stable").index[0]
    folders = {path.name for path in (tmp_path / "run/search/short").iterdir()}
    assert folders == {*one.index, *(f"{key}_2" for key in second), *(f"{key}_3" for key in third)}


def test_short_trainings_begin_with_the_supernet(
    run_search: Callable[..., Any], net: Supernet, teacher: Teacher, data: Data, tmp_path: Path
) -> None:
    """Each round is what `retrain` makes of the shared weights, at 0.4 of the rate given for new ones."""
    found = run_search(epochs=2, rounds=2, training=SHORT | {"lr": 0.05}, run=tmp_path / "run")
    archs = {arch.key: arch for arch in net.space}
    for key, epochs in zip(found.top["key"], found.top["short_epochs"], strict=True):
        short = tmp_path / "run/search/short" / (key if epochs == 1 else f"{key}_2") / "student"
        how = SHORT | {"lr": 0.02, "warmup_epochs": SHORT["warmup_epochs"] * epochs / 2}
        again = retrain(
            archs[key],
            teacher,
            data,
            space=net.space,
            supernet=net,
            epochs=epochs,
            test=False,
            run=tmp_path / key,
            runtime=Runtime("cpu"),
            **how,
        )
        made = again.state_dict()
        for name, mine in load_student(short).state_dict().items():
            assert torch.equal(mine, made[name]), name
    assert set(found.top["short_epochs"]) == {1, 2}


def test_seeds_change_proposals_and_short_trainings(run_search: Callable[..., Any], tmp_path: Path) -> None:
    one, same, other = (run_search(seed=seed, run=tmp_path / name) for seed, name in ((0, "a"), (0, "b"), (1, "c")))
    pd.testing.assert_frame_equal(one.trials, same.trials)
    pd.testing.assert_frame_equal(one.top, same.top)
    assert one.trials["key"].tolist() != other.trials["key"].tolist()
    assert one.trials["kl"].dropna().gt(0).all()
    both = set(one.top["key"]) & set(other.top["key"])
    assert both
    for key in both:
        first, again, second = (
            (tmp_path / name / "search/short" / key / "student/weights.safetensors").read_bytes() for name in "abc"
        )
        assert first == again != second, key


def test_the_best_subnets_are_tuned_from_the_supernet(
    run_search: Callable[..., Any], teacher: Teacher, data: Data, runtime: Runtime, tmp_path: Path
) -> None:
    """Each is an epoch of distillation from the shared weights, and the lowest softened KL enters first."""
    net = Supernet(SPACE, data.num_classes, data.in_chans, seed=0)
    # untrained, many subnets answer alike; after this, five tuned KL differ by 1e-4 and more, in each of five seeds
    train_supernet(net, data, epochs=4, batch_size=16, lr=0.1, warmup_epochs=0.5, runtime=runtime)
    found = run_search(net=net, tuned=5, epochs=0, top=4, run=tmp_path)
    better = pd.read_csv(tmp_path / "search/tuned.csv", dtype={"key": str})
    scored = found.trials[found.trials["kind"].isin(["warm", "trial"])].drop_duplicates("key")
    assert set(better["key"]) == set(scored.nsmallest(5, "kl")["key"])
    assert better["tuned_kl"].is_monotonic_increasing and better["tuned_kl"].nunique() == 5
    assert found.top["role"].tolist()[:2] == ["tuned", "tuned"]
    assert found.top["key"].tolist()[:2] == better["key"].tolist()[:2]
    assert found.best.key == better["key"].iloc[0]
    best = tmp_path / "search/tuned" / found.best.key / "student"
    logits = predict(load_student(best), data.rate, Runtime("cpu"))
    wanted = torch.cat([teacher(batch.x) for batch in data.rate.clean(64)])
    by_hand = F.kl_div((logits / 4).log_softmax(1), (wanted / 4).softmax(1), reduction="batchmean")
    assert better["tuned_kl"].iloc[0] == pytest.approx(float(by_hand), rel=1e-5)
    shared, own = net.extract(found.best).state_dict(), load_student(best).state_dict()
    moved = [float((own[name] - shared[name]).norm() / shared[name].norm()) for name in shared if "conv" in name]
    assert 0 < max(moved) < 1.0  # new weights would be at a distance of about the root of 2
    assert run_search(net=net, tuned=0, epochs=0, top=4).top["role"].tolist()[:2] == ["kl", "kl"]


def test_tuning_takes_up_where_it_was_killed(run_search: Callable[..., Any], tmp_path: Path) -> None:
    whole = run_search(tuned=3, epochs=0, run=tmp_path / "a")
    run_search(tuned=3, epochs=0, run=tmp_path / "b")
    folder = tmp_path / "b/search"
    for name in ("tuned.csv", "top.csv", "best.json"):
        (folder / name).unlink()
    record = json.loads((folder / "stage.json").read_text())
    (folder / "stage.json").write_text(json.dumps(record | {"done": False}))
    kept = {path: path.stat().st_mtime_ns for path in (folder / "tuned").rglob("weights.safetensors")}
    again = run_search(tuned=3, epochs=0, run=tmp_path / "b")
    assert len(kept) == 3 and all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items())
    pd.testing.assert_frame_equal(again.top, whole.top)
