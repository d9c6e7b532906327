"""Latencies of another device as a budget: of units, whose sum is bounded exactly, or of listed archs."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from small_run import Said

import nas_kd
from nas_kd.analyse.table import budget_words
from nas_kd.cost.latency import Latency
from nas_kd.cost.layers import layer_key
from nas_kd.data import Data
from nas_kd.errors import SettingError
from nas_kd.export import onnx_timed
from nas_kd.rate import timed
from nas_kd.runtime.device import Runtime
from nas_kd.searcher import budget as budget_of_search
from nas_kd.searcher.budget import Budget
from nas_kd.searcher.config import SearchConfig
from nas_kd.searcher.controller import reward
from nas_kd.searcher.evaluation import Evaluation, Guide
from nas_kd.searcher.finalists import controls
from nas_kd.searcher.latency_table import latency_template, read_latency_table
from nas_kd.searcher.search import search
from nas_kd.searcher.variables import SearchVariables
from nas_kd.space import Arch, ElasticSpace
from nas_kd.space.rows import cost_rows, stage_scores
from nas_kd.supernet import Supernet
from nas_kd.teacher import Teacher

SHAPE = {"in_chans": 1, "num_classes": 10}
OVERHEAD = 0.25


def made_up(stage: int, width: int, label: str) -> float:
    """Return a latency in eighths of a millisecond, whose sums are exact; larger candidates are not always slower."""
    return (sum(map(ord, label)) * 7 + 5 * width + 3 * stage) % 23 / 8 + 0.125


@pytest.fixture
def units(space: ElasticSpace, tmp_path: Path) -> Path:
    """A template of the space, filled in."""
    path = latency_template(space, tmp_path / "units.csv", resolution=8, **SHAPE)
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    frame["ms"] = [
        OVERHEAD if row.stage == "overhead" else made_up(int(row.stage), int(row.in_width), row.candidate)
        for row in frame.itertuples()
    ]
    frame.to_csv(path, index=False)
    return path


def by_hand(space: ElasticSpace, arch: Arch) -> float:
    total, width = OVERHEAD, space.stem.width
    for stage, candidate in enumerate(arch.stages, 1):
        total += made_up(stage, width, candidate.label)
        width = candidate.width
    return total


@pytest.fixture
def run_search(net: Supernet, teacher: Teacher, data: Data, tables: list[pd.DataFrame], runtime: Runtime) -> Any:
    def call(**changes: Any) -> Any:
        settings: dict[str, Any] = {"max_macs": None, "trials": 12, "top": 1, "epochs": 0, "tuned": 0}
        settings |= {"calibration_images": 32, "runtime": runtime, "seed": 0} | changes
        return search(net, teacher, data, tables, **settings)

    return call


def test_the_template_has_every_unit_once(space: ElasticSpace, units: Path) -> None:
    frame = pd.read_csv(units)
    rows = cost_rows(space, resolution=8, **SHAPE)
    assert len(frame) == 1 + sum(map(len, rows)) and frame["stage"].iloc[0] == "overhead"
    assert list(frame.columns) == ["stage", "in_width", "candidate", "macs", "params", "ms"]
    assert frame["macs"].iloc[1:].tolist() == [macs for table in rows for macs in table["macs"]]


def test_latencies_of_archs_are_sums_of_their_units(space: ElasticSpace, units: Path) -> None:
    table = read_latency_table(units)
    assert table.adds_up and table.overhead == OVERHEAD
    for arch in [space.sample(seed) for seed in range(40)] + [space.largest(), space.smallest()]:
        assert table.of(space, arch, SHAPE | {"resolution": 8}) == by_hand(space, arch)


@pytest.mark.parametrize("bound", [None, 1e6])
def test_a_latency_without_a_bound_is_no_share_of_the_cost(
    bound: float | None, space: ElasticSpace, units: Path, tables: list[pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of equal networks the one of half the MACs is rewarded more, whatever a table says of latencies."""
    cost = SHAPE | {"resolution": 8}
    most = space.cost(space.largest(), **cost).macs
    budget = Budget(space, cost, {"macs": most}, bound, table=read_latency_table(units))
    engine = import_module("nas_kd.searcher.engines.reinforce")
    monkeypatch.setattr(engine, "search_one_by_one", lambda proposer, *rest: proposer)
    guide = Guide(tables, pd.DataFrame(), 8, "tpe", "dimensions")
    proposer: Any = engine.Reinforce().search(Evaluation(budget, dict, ("accuracy",), 1, guide=guide))
    encode = SearchVariables(space).encode
    smallest, largest = encode(space.smallest()), encode(space.largest())
    proposer.known = {smallest: 0.5, largest: 0.5}
    share = space.cost(space.smallest(), **cost).macs / most
    assert proposer._reward(largest) == 0.5
    assert reward(0.5, share) > 0.5
    assert proposer._reward(smallest) == pytest.approx(reward(0.5, share))


def test_a_template_may_be_filled_in_by_pandas(space: ElasticSpace, units: Path, tmp_path: Path) -> None:
    kept = tmp_path / "pandas.csv"
    pd.read_csv(units).to_csv(kept, index=False)
    assert ".0," in kept.read_text().splitlines()[2]  # widths have become floats beside the empty one of the overhead
    assert read_latency_table(kept).units == read_latency_table(units).units
    read_latency_table(kept).check(space, SHAPE | {"resolution": 8})


def test_what_is_not_asked_for_may_be_left_out(space: ElasticSpace, units: Path) -> None:
    """Without in_width a latency is that of a candidate behind any width."""
    frame = pd.read_csv(units, dtype=str, keep_default_na=False)
    frame = frame[frame["stage"] != "overhead"].drop_duplicates(["stage", "candidate"])
    frame.assign(ms="1.5")[["candidate", "stage", "ms"]].to_csv(units, index=False)
    table = read_latency_table(units)
    assert table.of(space, space.sample(3), SHAPE | {"resolution": 8}) == 1.5 * len(space.stages)


def test_the_search_begins_with_the_exact_optimum_and_keeps_the_bound(
    space: ElasticSpace, units: Path, tables: list[pd.DataFrame], run_search: Callable[..., Any]
) -> None:
    scores = stage_scores(space, tables)
    every = list(space) if space.size < 20_000 else [space.sample(seed) for seed in range(4000)]
    times = sorted(by_hand(space, arch) for arch in every)
    limit = times[len(times) // 4]
    result = run_search(max_latency_ms=limit, latency_table=str(units))
    frame = result.frame()
    first = frame[frame["kind"] == "warm"].iloc[0]
    best = min(sum(scores(arch)) for arch in every if by_hand(space, arch) <= limit)
    assert first["score"] == pytest.approx(best, rel=1e-12)
    labels = {arch.label: by_hand(space, arch) for arch in every}
    scored = frame[frame["feasible"] & (frame["kind"] != "infeasible")]
    assert len(scored) >= 12 and all(labels[label] <= limit for label in scored["label"])
    assert any(labels[label] > limit for label in frame.loc[~frame["feasible"], "label"])
    assert by_hand(space, result.best) <= limit


def test_controls_are_the_largest_within_the_bound(space: ElasticSpace, units: Path) -> None:
    every = list(space) if space.size < 20_000 else []
    assert every
    cost = SHAPE | {"resolution": 8}
    limit = sorted(by_hand(space, arch) for arch in every)[len(every) // 5]
    found = controls(Budget(space, cost, {}, limit, table=read_latency_table(units)), 0)
    within = [arch for arch in every if by_hand(space, arch) <= limit]
    for name in ("macs", "params"):
        most = max(getattr(space.cost(arch, **cost), name) for arch in within)
        assert getattr(space.cost(found[f"largest_{name}"], **cost), name) == pytest.approx(most, rel=2e-4)
    assert by_hand(space, found["random"]) <= limit
    fastest = min(by_hand(space, arch) for arch in every)
    with pytest.raises(
        SettingError, match=rf"max_latency_ms=0.01: expected {fastest:.3g} \(the fastest arch in .*units"
    ):
        Budget(space, cost, {}, 0.01, table=read_latency_table(units))


def test_missing_units_are_counted_and_named(space: ElasticSpace, units: Path) -> None:
    frame = pd.read_csv(units, dtype=str, keep_default_na=False)
    frame.drop(index=[1, 5, 9]).to_csv(units, index=False)
    named = "; ".join(
        f"stage {row.stage} in_width {row.in_width} candidate {row.candidate}"
        for row in frame.loc[[1, 5, 9]].itertuples()
    )
    with pytest.raises(SettingError, match="search.latency_table") as caught:
        read_latency_table(units).check(space, SHAPE | {"resolution": 8})
    assert f"3 of {len(frame) - 1} units (resolution 8 {named.replace('; ', '; resolution 8 ')}) are missing" in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stage,unit,ms\n1,w4,2\n", "the columns arch and ms, or stage, candidate and ms; it has stage, unit, ms"),
        ("stage,candidate,ms\n1,w4:2,\n1,w4:4,2\n", r"1 of 2 rows \(1 w4:2\) have none"),
        ("stage,candidate,ms\n1,w4:2,fast\n", "line 2.*a number of milliseconds, not 'fast'"),
        ("stage,candidate,ms\n1,w4:2,-1\n", "line 2.*a number of milliseconds, not '-1'"),
        ("stage,candidate,ms\n1,w4:2,1\n1,w4:2,2\n", "line 3.*one latency for 1 w4:2"),
        ("", "a CSV file with the columns"),
    ],
)
def test_bad_files_are_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(SettingError, match=message):
        read_latency_table(path)


@pytest.mark.parametrize("name", ["label", "key"])
@pytest.mark.parametrize("engine", ["exact", "nsga2"])
def test_of_listed_archs_one_is_chosen(
    space: ElasticSpace, run_search: Callable[..., Any], tmp_path: Path, name: str, engine: str
) -> None:
    listed = list(dict.fromkeys(space.sample(seed) for seed in range(9)))
    times = {getattr(arch, name): 1.0 + at for at, arch in enumerate(listed)}
    path = tmp_path / "archs.csv"
    pd.DataFrame({"arch": list(times), "ms": list(times.values())}).to_csv(path, index=False)
    result = run_search(max_latency_ms=5.5, latency_table=str(path), engine=engine)
    frame = result.frame()
    fast = {arch.key for arch in listed[:5]}
    scored = frame[frame["feasible"] & (frame["kind"] != "infeasible")]
    assert set(scored["key"]) == fast and result.best.key in fast
    with pytest.raises(SettingError, match=r"max_latency_ms=0.5: expected 1 \(the fastest arch in"):
        run_search(max_latency_ms=0.5, latency_table=str(path), engine=engine)


def test_rows_that_name_no_arch_are_counted_and_named(space: ElasticSpace, tmp_path: Path) -> None:
    path = tmp_path / "archs.csv"
    path.write_text(f'arch,ms\n"{space.smallest().label}",1\nw5:1,2\nabcdef123456,3\n')
    with pytest.raises(SettingError, match=r"2 of 3 rows \(w5:1; abcdef123456\) name none"):
        read_latency_table(path).check(space, SHAPE | {"resolution": 8})


@pytest.mark.parametrize("name", ["digits", "ofa_mobilenet_v3", "attentive_nas", "vit", "resnet_ofa"])
def test_labels_are_read_back(name: str) -> None:
    from nas_kd.space.load import space_names

    space = nas_kd.load_space(name if name in space_names() else space_names()[-1])
    for seed in range(20):
        arch = space.sample(seed)
        assert Arch.from_label(space.hash, arch.label) == arch
        assert Arch.from_label(space.hash, arch.label).key == arch.key


def test_another_table_is_another_search(units: Path, run_search: Callable[..., Any], tmp_path: Path) -> None:
    settings: dict[str, Any] = {"max_latency_ms": 6.0, "trials": 4, "run": tmp_path / "run"}
    first = run_search(latency_table=str(units), **settings)
    moved = units.rename(tmp_path / "moved.csv")
    assert run_search(latency_table=str(moved), **settings).best == first.best
    moved.write_text(moved.read_text().replace("overhead,,,,,0.25", "overhead,,,,,0.5"))
    with pytest.raises(SettingError, match="search.latency_table"):
        run_search(latency_table=str(moved), **settings)


def test_a_table_without_a_bound_is_refused() -> None:
    with pytest.raises(
        SettingError, match=r"search.latency_table='a.csv': expected null without search.max_latency_ms"
    ):
        nas_kd.SearchConfig(latency_table="a.csv")
    nas_kd.SearchConfig(latency_table="a.csv", objectives=["kl", "latency_ms"])


def test_sizes_of_a_space_are_told_apart(tmp_path: Path) -> None:
    space = nas_kd.teacher_space(
        Teacher(
            nas_kd.load_teacher("cifar_resnet8", num_classes=10, in_chans=1).network, "t", num_classes=10, in_chans=1
        ),
        resolution=8,
        resolutions=(6,),
    )
    path = latency_template(space, tmp_path / "units.csv", **SHAPE)
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    assert sorted(set(frame["resolution"])) == ["", "6", "8"]
    frame["ms"] = frame["resolution"].replace("", "0")
    frame.to_csv(path, index=False)
    table = read_latency_table(path)
    table.check(space, SHAPE)
    for seed in range(6):
        arch = space.sample(seed)
        assert table.of(space, arch, SHAPE) == arch.resolution * len(space.stages)
    frame[["stage", "in_width", "candidate", "ms"]].drop_duplicates(["stage", "in_width", "candidate"]).to_csv(
        path, index=False
    )
    with pytest.raises(SettingError, match=r"a column resolution: .* chooses from 6, 8 px"):
        read_latency_table(path).check(space, SHAPE)


def test_describe_reads_the_table(tmp_path: Path, nas_kd_main: Callable[..., Said]) -> None:
    path = latency_template(nas_kd.load_space("digits"), tmp_path / "units.csv", **SHAPE)
    given = ("describe", "--space", "digits", "--search.max_latency_ms", 4, "--search.latency_table", path)
    said = nas_kd_main(*given)
    assert said.code == 2 and "a number of milliseconds in every row" in said.err
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    frame.assign(ms="0.5").to_csv(path, index=False)
    said = nas_kd_main(*given)
    assert said.code == 0, said.err
    stages = len(nas_kd.load_space("digits").stages)
    assert f"the fastest arch takes {0.5 * (stages + 1):.3g} ms; at most 4 ms" in said.out


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ({"latency_runtime": "onnxruntime"}, "give search.max_latency_ms"),
        (
            {"latency_runtime": "onnxruntime", "latency_table": "t.csv", "max_latency_ms": 1.0},
            "leave one of the two out",
        ),
        ({"latency_runtime": "onnx", "max_latency_ms": 1.0}, "onnxruntime"),
    ],
)
def test_a_runtime_for_which_nothing_is_timed_is_refused(given: dict[str, Any], hint: str) -> None:
    with pytest.raises(SettingError, match="search.latency_runtime") as caught:
        SearchConfig(**given)
    assert hint in str(caught.value)
    assert SearchConfig(latency_runtime="onnxruntime", objectives=["kl", "latency_ms"]).latency_table is None


def test_a_search_within_milliseconds_of_onnx_runtime(
    space: ElasticSpace, data: Data, tmp_path: Path, run_search: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole networks and units are asked for in that runtime, and the record names it."""
    asked: list[str] = []

    def whole(runtime: str, module: Any, *rest: Any, **more: Any) -> Latency:
        asked.append(runtime)
        taken = sum(p.numel() for p in module.parameters()) / 1000
        return Latency(taken, 0.0, 1, 1, onnx_timed.timed_on(runtime, more["device"]), 30)

    def layers(networks: Any, *rest: Any, **more: Any) -> dict[Any, float]:
        return {layer_key(layer): 0.01 for each in networks for layer in each}

    for module in (budget_of_search, timed):
        monkeypatch.setattr(module, "latency_in", whole)
    monkeypatch.setattr(timed, "onnx_layer_times", layers)
    shape = {"resolution": data.resolution, "in_chans": data.in_chans, "num_classes": data.num_classes}
    most = space.cost(space.largest(), **shape).params / 2000
    result = run_search(max_latency_ms=most, latency_runtime="onnxruntime", run=str(tmp_path / "run"))
    assert set(asked) == {"onnxruntime"}
    assert space.cost(result.best, **shape).params / 1000 <= most
    best = json.loads((tmp_path / "run" / "search" / "best.json").read_text())
    assert best["latency_runtime"] == "onnxruntime" and budget_words(best).endswith(
        f"at most {most:g} ms in onnxruntime"
    )
    rows = pd.read_csv(tmp_path / "run" / "latency.csv")
    assert rows["device"].str.endswith(", ONNX Runtime").all()
    assert rows["predicted_ms"].notna().sum() == 20


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime"])
def test_a_teachers_cuts_are_timed_as_a_whole(runtime: str, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its units do not run by themselves: nothing is estimated, and the bound is kept."""

    def whole(asked: str, module: Any, *rest: Any, **more: Any) -> Latency:
        assert asked == runtime
        return Latency(sum(p.numel() for p in module.parameters()) / 1000, 0.0, 1, 1, "cpu", 30)

    monkeypatch.setattr(budget_of_search, "latency_in", whole)
    torch.manual_seed(0)
    teacher = nas_kd.load_teacher("cifar_resnet8", num_classes=data.num_classes, in_chans=data.in_chans).bind(data)
    derived = nas_kd.teacher_space(teacher, data, (0.5,))
    net = Supernet(derived)
    rated = nas_kd.rate_units(net, teacher, data)
    shape = {"resolution": data.resolution, "in_chans": data.in_chans, "num_classes": data.num_classes}
    most = derived.cost(derived.largest(), **shape).params / 2000
    given: dict[str, Any] = {"max_macs": None, "max_latency_ms": most, "latency_runtime": runtime}
    given |= {"trials": 4, "top": 1, "epochs": 0, "tuned": 0, "rerate": 0, "calibration_images": 32}
    result = search(net, teacher, data, rated, **given)
    frame = result.frame()
    scored = frame[frame["kl"].notna()]
    assert len(scored) >= 4 and (scored["params"] / 1000 <= most).all()
