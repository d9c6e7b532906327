"""More of what a finished search has: trials, finalists, tuned subnets, rounds and archs to begin with."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import nas_kd
from nas_kd.data import Data
from nas_kd.errors import SettingError
from nas_kd.rate.units import rate_units
from nas_kd.runtime.device import Runtime
from nas_kd.searcher.search import search
from nas_kd.supernet import Supernet
from nas_kd.teacher import Teacher

VERB = import_module("nas_kd.searcher.search")
Tables = list[pd.DataFrame]
Search = Callable[..., Any]


@pytest.fixture
def run_search(net: Supernet, teacher: Teacher, data: Data, tables: Tables, runtime: Runtime) -> Search:
    def call(**changes: Any) -> Any:
        settings: dict[str, Any] = {"max_macs": "60%", "trials": 6, "top": 2, "epochs": 0, "tuned": 0}
        settings |= {"calibration_images": 32, "runtime": runtime} | changes
        settings["training"] = {"batch_size": 16, "lr": 0.1, "warmup_epochs": 0.25}
        return search(net, teacher, data, tables, **settings)

    return call


def same(one: Path, other: Path, name: str) -> bool:
    return (one / "search" / name).read_bytes() == (other / "search" / name).read_bytes()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of all archs that are scored."""
    keys: list[str] = []
    real = VERB.SubnetScorer.__call__

    def call(self: Any, arch: Any) -> dict[str, float]:
        keys.append(arch.key)
        found: dict[str, float] = real(self, arch)
        return found

    monkeypatch.setattr(VERB.SubnetScorer, "__call__", call)
    return keys


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_more_trials_are_those_of_a_search_begun_with_them(
    run_search: Search, counted: list[str], tmp_path: Path, sampler: str
) -> None:
    run_search(sampler=sampler, run=tmp_path / "grown", trials=14)
    counted.clear()
    grown = run_search(sampler=sampler, run=tmp_path / "grown", trials=24)
    assert len(counted) == 10 + 3  # the further ones, and the controls, which stand behind them
    whole = run_search(sampler=sampler, run=tmp_path / "whole", trials=24)
    assert grown.best == whole.best
    for name in ("trials.csv", "top.csv", "pareto.csv", "best.json", "front.csv", "stage.json"):
        assert same(tmp_path / "grown", tmp_path / "whole", name), name
    counted.clear()
    assert run_search(sampler=sampler, run=tmp_path / "grown", trials=24).best == whole.best and not counted


def test_of_engines_without_a_teacher_too(run_search: Search, tmp_path: Path) -> None:
    for run, counts in (("grown", (7, 12)), ("whole", (12,))):
        for trials in counts:
            run_search(engine="nsga2", run=tmp_path / run, trials=trials)
    assert same(tmp_path / "grown", tmp_path / "whole", "trials.csv")


def test_coarse_goes_on_by_a_finer_grid(run_search: Search, tmp_path: Path) -> None:
    """Its grid is as fine as all trials allow: the first ones stay, the others are not those of a longer search."""
    first = run_search(engine="coarse", run=tmp_path / "run", trials=6).frame()
    grown = run_search(engine="coarse", run=tmp_path / "run", trials=12).frame()
    own = [frame[frame["kind"] != "control"] for frame in (first, grown)]
    assert len(own[0]) == 6 and len(own[1]) == 12
    assert own[1]["key"].tolist()[:6] == own[0]["key"].tolist()


def test_killed_between_it_goes_on(run_search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run_search(run=tmp_path / "whole", trials=18)
    run_search(run=tmp_path / "grown", trials=10)
    calls = 0
    real = VERB.SubnetScorer.__call__

    def fails(self: Any, arch: Any) -> dict[str, float]:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        found: dict[str, float] = real(self, arch)
        return found

    monkeypatch.setattr(VERB.SubnetScorer, "__call__", fails)
    with pytest.raises(KeyboardInterrupt):
        run_search(run=tmp_path / "grown", trials=18)
    assert run_search(run=tmp_path / "grown", trials=18).best == whole.best
    assert same(tmp_path / "grown", tmp_path / "whole", "trials.csv")


@pytest.mark.parametrize(
    ("name", "less", "more"), [("top", 1, 3), ("tuned", 1, 2), ("rounds", 1, 2)], ids=["top", "tuned", "rounds"]
)
def test_more_finalists_tuned_subnets_and_rounds(
    run_search: Search, counted: list[str], tmp_path: Path, name: str, less: int, more: int
) -> None:
    settings = {"epochs": 2 if name == "rounds" else 1, "rounds": 1, "top": 1, "tuned": 0}
    run_search(run=tmp_path / "grown", **settings | {name: less})
    before = {path: path.read_bytes() for path in (tmp_path / "grown/search").rglob("student/weights.safetensors")}
    counted.clear()
    grown = run_search(run=tmp_path / "grown", **settings | {name: more})
    assert not counted  # no subnet is scored again
    whole = run_search(run=tmp_path / "whole", **settings | {name: more})
    assert grown.best == whole.best
    for file in ("trials.csv", "top.csv", "best.json", *(["tuned.csv"] if name == "tuned" else [])):
        assert same(tmp_path / "grown", tmp_path / "whole", file), file
    assert before and all(path.read_bytes() == content for path, content in before.items())


def test_fewer_are_refused_where_more_are_finished(
    run_search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_search(run=tmp_path / "run", trials=8)
    kept = {path: path.read_bytes() for path in (tmp_path / "run/search").rglob("*") if path.is_file()}
    with pytest.raises(SettingError, match=r"search.trials=5: expected at least 8.*search.trials=8 or more"):
        run_search(run=tmp_path / "run", trials=5)
    with pytest.raises(
        SettingError, match=r"^search.calibration_images='search.calibration_images=33': expected what"
    ):  # and nothing else goes along
        run_search(run=tmp_path / "run", trials=9, calibration_images=33)
    assert kept == {path: path.read_bytes() for path in kept}
    monkeypatch.setattr(VERB, "choose_finalists", lambda *rest: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run_search(run=tmp_path / "cut", trials=30)
    monkeypatch.undo()
    found = run_search(run=tmp_path / "cut", trials=20)  # it was never finished: what it has is enough
    assert len(found.frame()[found.frame()["kind"] != "control"]) >= 20


def test_further_archs_to_begin_with_are_scored_besides(
    tmp_path: Path, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They come behind the others, so that rows are in another order than those of a search begun with them."""
    torch.manual_seed(0)
    data = nas_kd.load_data("digits", subset=400, rate=0.2, select=0.2)
    teacher = nas_kd.train_teacher("cifar_resnet8", data, epochs=1, batch_size=32)
    net = nas_kd.Supernet(nas_kd.teacher_space(teacher, data))
    around = list(dict.fromkeys(net.space.sample(seed) for seed in range(20)))
    monkeypatch.setattr(
        "nas_kd.searcher.begin.archs_around", lambda *rest, rounds, **more: [(arch, 0.0) for arch in around[:rounds]]
    )
    settings: dict[str, Any] = {"max_macs": "99%", "trials": 4, "top": 1, "epochs": 0, "tuned": 0, "runtime": runtime}
    settings |= {"calibration_images": 32, "run": tmp_path / "run"}
    tables = rate_units(net, teacher, data)

    def keys(rerate: int) -> list[str]:
        frame = search(net, teacher, data, tables, rerate=rerate, **settings).frame()
        return [str(key) for key in frame.loc[frame["kind"] != "control", "key"]]

    few = keys(1)
    assert len(few) == 4 and few[0] == around[0].key
    further = [arch.key for arch in around[1:3] if arch.key not in few]
    assert keys(3) == few + further and further
    assert keys(3) == few + further
