"""The search from the supernet alone: budgets, counts, resume, what wins, and spaces that choose more than stages."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from elastic_spaces import ENDS, MOBILE, VIT

from nas_kd import retrain, search
from nas_kd.data import Data
from nas_kd.distill import Classification
from nas_kd.errors import SettingError
from nas_kd.nn import at_resolution
from nas_kd.rate import SubnetScorer
from nas_kd.runtime.device import Runtime
from nas_kd.runtime.seeds import seed_for
from nas_kd.searcher.budget import Budget, cost_settings
from nas_kd.searcher.finalists import controls
from nas_kd.searcher.trials import evaluated
from nas_kd.space import Arch, ElasticSpace
from nas_kd.supernet import Supernet, calibrate
from nas_kd.teacher import Teacher

VERB = import_module("nas_kd.searcher.search")
SHORT = {"batch_size": 16, "lr": 0.1, "warmup_epochs": 0.25}
ENGINES = ["nsga2", "coarse", "random"]


@pytest.fixture
def alone(net: Supernet, data: Data, runtime: Runtime) -> Callable[..., Any]:
    def call(engine: str | None = None, **changes: Any) -> Any:
        settings: dict[str, Any] = {
            "max_macs": "60%",
            "trials": 30,
            "top": 2,
            "epochs": 0,
            "calibration_images": 32,
            "training": SHORT,
            "runtime": runtime,
            "engine": engine,
            "net": net,
        }
        settings |= changes
        return search(settings.pop("net"), None, data, **settings)

    return call


@pytest.mark.parametrize("engine", ENGINES)
def test_distinct_archs_within_the_budget_and_the_best_wins(
    alone: Callable[..., Any], space: ElasticSpace, data: Data, engine: str, tmp_path: Path
) -> None:
    result = alone(engine, run=tmp_path / "run")
    frame, cost = result.frame(), cost_settings(space, data)
    scored = evaluated(frame)
    assert len(scored) == scored["key"].nunique() == 30 and (scored["macs"] <= result.budget["macs"]).all()
    by_key = {arch.key: arch for arch in space}
    for _, row in frame.iterrows():
        arch = by_key[row["key"]]
        assert (row["macs"], row["params"], row["label"]) == (*space.cost(arch, **cost), arch.label)
    assert frame[["kl", "score", "agreement"]].isna().all().all() and len(result.exact) == 0
    fits = frame[frame["feasible"] & frame["accuracy"].notna()]
    best = frame[frame["key"] == result.best.key].iloc[0]
    assert best["accuracy"] == fits["accuracy"].max()
    assert best["loss"] == fits.loc[fits["accuracy"] == best["accuracy"], "loss"].min()
    front = result.front()
    assert front["macs"].is_monotonic_increasing and (front["accuracy"].diff()[1:] > 0).all()
    for _, row in frame[frame["accuracy"].notna()].iterrows():
        assert ((front["macs"] <= row["macs"]) & (front["accuracy"] >= row["accuracy"])).any()
    again = alone(engine, run=tmp_path / "run")
    assert again.best == result.best and again.engine == engine
    pd.testing.assert_frame_equal(again.trials, pd.read_csv(tmp_path / "run/search/trials.csv"))
    found = json.loads((tmp_path / "run/search/best.json").read_text())
    assert found["engine"] == engine and found["teacher"] is False
    assert not (tmp_path / "run/search/front.csv").exists() and not (tmp_path / "run/search/short").exists()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_search_that_was_cut_off_goes_on(
    alone: Callable[..., Any], tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = alone(engine, run=tmp_path / "whole")
    calls, real = 0, VERB.SubnetScorer.__call__

    def fails(self: Any, arch: Arch) -> dict[str, float]:
        nonlocal calls
        calls += 1
        if calls in (5, 24):
            raise KeyboardInterrupt
        return real(self, arch)

    monkeypatch.setattr(VERB.SubnetScorer, "__call__", fails)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            alone(engine, run=tmp_path / "cut")
    assert alone(engine, run=tmp_path / "cut").best == whole.best
    one, other = (tmp_path / name / "search/trials.csv" for name in ("whole", "cut"))
    assert one.read_bytes() == other.read_bytes()
    assert calls == 30 + 3 + 2


class _Planted:
    """Accuracy that is how near an arch is to a planted one, in the shares of its costs and layers."""

    wanted: Arch = ENDS.smallest()

    def __init__(self, *rest: Any, **more: Any) -> None: ...

    def __call__(self, arch: Arch) -> dict[str, float]:
        alike = [
            float(np.mean([mine.width == theirs.width, mine.depth == theirs.depth, mine.layers == theirs.layers]))
            for mine, theirs in zip(arch.stages, self.wanted.stages, strict=True)
        ]
        ends = [arch.stem == self.wanted.stem, arch.head == self.wanted.head, arch.resolution == self.wanted.resolution]
        return {"accuracy": float(np.mean([*alike, np.mean(ends)])), "loss": 1.0}


@pytest.mark.parametrize("engine", ["nsga2", "coarse"])
def test_a_planted_arch_is_found(
    alone: Callable[..., Any], data: Data, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, cost = Supernet(ENDS, data.num_classes, data.in_chans), cost_settings(ENDS, data)
    cap = 0.6 * ENDS.cost(ENDS.largest(), **cost).macs
    within = [arch for arch in map(ENDS.sample, range(60)) if ENDS.cost(arch, **cost).macs <= cap]
    monkeypatch.setattr(VERB, "SubnetScorer", _Planted)
    found = 0
    for wanted in within[:3]:
        monkeypatch.setattr(_Planted, "wanted", wanted)
        found += alone(engine, net=net, trials=120).best == wanted
    assert found >= 2  # of 864 archs; 120 random ones hold a given one in every seventh search


def test_a_short_training_by_labels_has_the_last_word(alone: Callable[..., Any], tmp_path: Path) -> None:
    result = alone("nsga2", epochs=1, trials=8, run=tmp_path / "run")
    top = result.top
    assert top["select_accuracy"].between(0, 1).all() and top["select_agreement"].isna().all()
    assert top.loc[top["key"] == result.best.key, "select_accuracy"].iloc[0] == top["select_accuracy"].max()
    assert top["role"].tolist()[:2] == ["accuracy", "accuracy"] and {"random"} <= set(top["role"])
    facts = json.loads((tmp_path / "run/search/short" / result.best.key / "stage.json").read_text())["inputs"]
    assert facts["teacher"] is None and facts["retrain.method"] == "ce"


def test_the_engine_follows_from_what_is_given(alone: Callable[..., Any], teacher: Teacher, data: Data) -> None:
    assert alone(trials=4).engine == "nsga2"
    net = Supernet(ENDS, data.num_classes, data.in_chans)
    for keywords, field in (
        ({"engine": "exact"}, "search.engine"),
        ({"engine": "nsga3"}, "search.engine"),
        ({"training": {"method": "kd_ls"}}, "training.method"),
        ({"epochs": -1}, "search.epochs"),
    ):
        with pytest.raises(SettingError) as caught:
            search(net, None, data, **keywords)  # type: ignore[arg-type]
        assert caught.value.field == field
    with pytest.raises(SettingError, match="data"):
        search(net)


def test_with_a_teacher_an_engine_says_how_far_subnets_agree(
    net: Supernet, data: Data, teacher: Teacher, runtime: Runtime
) -> None:
    result = search(net, teacher, data, engine="coarse", trials=6, epochs=0, calibration_images=32, runtime=runtime)
    assert result.frame()["kl"].notna().all() and result.frame()["agreement"].between(0, 1).all()
    assert result.engine == "coarse" and len(result.exact) == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_an_infeasible_budget_names_the_smallest(
    alone: Callable[..., Any], space: ElasticSpace, cost: dict[str, int], engine: str
) -> None:
    least = space.cost(space.smallest(), **cost)
    with pytest.raises(SettingError, match=f"search.max_macs=.*{least.macs:,} MACs"):
        alone(engine, max_macs=least.macs - 1)
    only = alone(engine, max_macs=least.macs, trials=5)
    assert only.best == space.smallest()


@pytest.mark.parametrize("space", [ENDS, MOBILE, VIT], ids=lambda space: space.name)
def test_found_archs_choose_everything_and_retrain(space: ElasticSpace, data: Data, runtime: Runtime) -> None:
    net = Supernet(space, data.num_classes, data.in_chans)
    settings: dict[str, Any] = {"trials": 12, "epochs": 0, "calibration_images": 32, "runtime": runtime}
    result = search(net, None, data, engine="coarse", max_macs="70%", **settings)
    archs = {row["key"] for _, row in result.frame().iterrows()}
    assert result.best.key in archs
    space.validate(result.best)
    if space.resolutions:
        assert result.frame()["label"].str.extract(r"(\d+)px")[0].nunique() > 1
    student = retrain(result.best, None, data, space=space, method="ce", epochs=1, batch_size=16, runtime=runtime)
    assert student.info["arch"] == result.best.to_dict()  # type: ignore[index, union-attr]


def test_controls_of_elastic_spaces_are_the_largest(data: Data) -> None:
    for space in (ENDS, VIT):
        cost = cost_settings(space, data)
        assert "resolution" not in cost
        cap = int(0.6 * space.cost(space.largest(), **cost).macs)
        found = controls(Budget(space, cost, {"macs": cap}), seed=0)
        within = [space.cost(arch, **cost) for arch in space if space.cost(arch, **cost).macs <= cap]
        for name in ("macs", "params"):
            most = max(getattr(c, name) for c in within)
            assert getattr(space.cost(found[f"largest_{name}"], **cost), name) >= most * (1 - 2e-4)
        assert all(space.cost(arch, **cost).macs <= cap for arch in found.values())


def test_a_score_is_that_of_the_static_net_at_the_archs_size(data: Data, runtime: Runtime) -> None:
    net = Supernet(ENDS, data.num_classes, data.in_chans, seed=seed_for("score"))
    scorer = SubnetScorer(net, data, None, task=Classification(smoothing=0.0), calibration_images=40, runtime=runtime)
    clean = [batch.x for batch in data.train.clean(512, limit=40)]
    batch = next(iter(data.rate.clean(512)))
    for arch in (ENDS.smallest(), ENDS.largest(), ENDS.sample(3)):
        assert arch.resolution is not None
        norm = calibrate(net, [at_resolution(x, arch.resolution) for x in clean], [arch])[0]
        with torch.no_grad():
            logits = net.extract(arch, norm).eval()(at_resolution(batch.x, arch.resolution))
        found = scorer(arch)
        assert found["accuracy"] == float((logits.argmax(1) == batch.y).double().mean())
        assert found["loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, batch.y)), rel=1e-5)
        assert set(found) == {"accuracy", "loss"}
