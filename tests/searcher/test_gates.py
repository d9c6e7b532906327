"""Engine gates: what learned gates say becomes an arch within the budget, and the search goes on from there."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from small_run import environment

import nas_kd
from nas_kd.analyse.frames import GUIDED
from nas_kd.data import Data, load_data
from nas_kd.derive.gates import GatedNet, Gates
from nas_kd.derive.supernet import TeacherSupernet
from nas_kd.errors import SettingError
from nas_kd.pipeline.config import Config
from nas_kd.rate.units import rate_units
from nas_kd.searcher.budget import Budget
from nas_kd.searcher.config import SearchConfig
from nas_kd.searcher.engines import ENGINES
from nas_kd.searcher.gated import arch_of_gates, check_gates
from nas_kd.teacher import Teacher
from nas_kd.train.gates import learn_gates

COST = {"resolution": 8, "in_chans": 1, "num_classes": 10}
CONFIG = """\
device: cpu
threads: 1
workers: 1
data: {train: digits, subset: 400, rate: 0.15, select: 0.15, views: 2}
teacher: {model: cifar_resnet14, epochs: 3, batch_size: 32, lr: 0.1}
derive: {rate_images: 32}
search: {engine: gates, max_macs: 25%, gate_epochs: 2, trials: 3, top: 2, epochs: 1, tuned: 2, calibration_images: 64}
retrain: {epochs: 1, batch_size: 32, seeds: 1, random_students: 1, band: 0.3}
"""


@pytest.fixture(scope="module")
def data() -> Data:
    return load_data("digits", subset=400, rate=0.2, select=0.2)


@pytest.fixture(scope="module")
def teacher(data: Data) -> Teacher:
    torch.manual_seed(0)
    return nas_kd.train_teacher("cifar_resnet14", data, epochs=2, batch_size=32, lr=0.1)


@pytest.fixture(scope="module")
def net(teacher: Teacher, data: Data) -> TeacherSupernet:
    net = nas_kd.Supernet(nas_kd.teacher_space(teacher, data, (0.5,)))
    assert isinstance(net, TeacherSupernet)
    return net


def budget_of(net: TeacherSupernet, share: float, column: str = "macs") -> Budget:
    space = net.space
    return Budget(space, COST, {column: int(share * getattr(space.cost(space.largest(), **COST), column))})


@pytest.mark.parametrize(("share", "column"), [(0.2, "macs"), (0.5, "macs"), (0.5, "params")])
def test_the_arch_closes_the_least_of_all_within_the_budget(net: TeacherSupernet, share: float, column: str) -> None:
    space = net.space
    budget = budget_of(net, share, column)
    gates = Gates.of(net, COST, column)
    values = torch.rand(gates.count, generator=torch.Generator().manual_seed(3))
    lost: list[list[float]] = []  # by unit and candidate
    for unit, stage in enumerate(space.stages):
        (parts,) = [g for g in gates.groups if g.unit == unit and g.group is not None]
        own = next((g for g in gates.groups if g.unit == unit and g.group is None), None)
        rising = sorted(parts.of(values).tolist())
        left_out = parts.cost * sum(rising) + (0.0 if own is None else own.cost * float(own.of(values)[0]))
        lost.append(
            [
                parts.cost * sum(rising[: parts.count - int(candidate.layers[0][0])]) if candidate.layers else left_out
                for candidate in stage.candidates()
            ]
        )
    least, best = float("inf"), None
    for chosen in itertools.product(*(range(len(stage.candidates())) for stage in space.stages)):
        stages = tuple(stage.candidates()[at] for stage, at in zip(space.stages, chosen, strict=True))
        arch = replace(space.largest(), stages=stages)
        total = sum(row[at] for row, at in zip(lost, chosen, strict=True))
        if budget.fits(arch) and total < least:
            least, best = total, arch
    assert arch_of_gates(net, gates, values, budget, COST) == best


def test_closed_units_go_first_and_open_gates_stay_whole(net: TeacherSupernet) -> None:
    gates = Gates.of(net, COST)
    values = torch.ones(gates.count)
    assert arch_of_gates(net, gates, values, budget_of(net, 1.0), COST) == net.space.largest()
    removable = [group for group in gates.groups if group.group is None]
    for group in gates.groups:
        if group.unit in {unit.unit for unit in removable[:2]}:
            group.of(values)[:] = 0
    whole = net.space.cost(net.space.largest(), **COST).macs
    left = whole - round(sum(group.cost for group in removable[:2]) * whole)
    arch = arch_of_gates(net, gates, values, Budget(net.space, COST, {"macs": left}), COST)
    closed = {group.unit for group in removable[:2]}
    assert [not stage.layers for stage in arch.stages] == [unit in closed for unit in range(len(arch.stages))]
    assert net.space.cost(arch, **COST).macs == left


def test_channels_that_nothing_needs_close_first_and_the_budget_is_met(
    net: TeacherSupernet, teacher: Teacher, data: Data
) -> None:
    """A half of the first unit's channels is read with weights of zero: no answer changes without them."""
    dead = nas_kd.load_teacher("cifar_resnet14", num_classes=10, in_chans=1)
    dead.network.load_state_dict(teacher.network.state_dict())
    unit = net.cuts.units[1]
    (slot,) = [slot for slot in unit.groups[0].slots if (slot.tensor, slot.dim) == ("weight", 1)]
    with torch.no_grad():
        dead.network.get_submodule(slot.layer).weight[:, :8] = 0  # type: ignore[index,operator]
    dead.bind(data)
    own = nas_kd.Supernet(nas_kd.teacher_space(dead, data, (0.5,)))
    assert isinstance(own, TeacherSupernet)
    gates = Gates.of(own, COST)
    found = learn_gates(own, gates, dead, data, share=0.6, epochs=8, lr=0.001, temperature=4.0)
    (first,) = [group for group in gates.groups if group.unit == 1 and group.group is not None]
    assert first.of(found)[:8].mean() < first.of(found)[8:].mean()
    assert 0 <= float(found.min()) and float(found.max()) <= 1
    assert float(gates.share(found)) < 0.9  # from 1; the arch keeps the budget exactly


def searched(net: TeacherSupernet, teacher: Teacher, data: Data, **settings: Any) -> Any:
    tables = rate_units(net, teacher, data, score="local", images=32)
    how: dict[str, Any] = {
        "engine": "gates",
        "max_macs": "40%",
        "trials": 3,
        "tuned": 0,
        "epochs": 0,
        "rate_images": 32,
        "calibration_images": 64,
        "gate_epochs": 2,
    }
    return nas_kd.search(net, teacher, data, tables, **how | settings)


def test_a_search_scores_the_gates_arch_first_and_goes_on_where_it_stopped(
    net: TeacherSupernet, teacher: Teacher, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = searched(net, teacher, data, run=tmp_path / "whole")
    rows = whole.frame()
    gates = json.loads((tmp_path / "whole/search/gates/gates.json").read_text())["gates"]
    plan = Gates.of(net, COST)
    first = arch_of_gates(net, plan, torch.tensor(gates), budget_of(net, 0.4), COST)
    assert rows["key"].iloc[0] == first.key and (rows.loc[rows["feasible"], "macs"] <= 0.4 * 1_631_872).all()
    assert whole.engine == "gates"
    steps = itertools.count()
    own = GatedNet.keep_within

    def mortal(self: GatedNet) -> None:
        if next(steps) == 6:  # in the second epoch of four steps
            raise KeyboardInterrupt
        own(self)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(GatedNet, "keep_within", mortal)
        searched(net, teacher, data, run=tmp_path / "part")
    assert (tmp_path / "part/search/gates/last.pt").exists()
    again = searched(net, teacher, data, run=tmp_path / "part")
    assert json.loads((tmp_path / "part/search/gates/gates.json").read_text())["gates"] == gates
    pd.testing.assert_frame_equal(again.frame(), rows)
    with monkeypatch.context() as patch:  # nothing learns again
        patch.setattr("nas_kd.searcher.gated.learn_gates", None)
        assert searched(net, teacher, data, run=tmp_path / "part", trials=4).frame()["key"].iloc[0] == first.key


def test_what_gates_need_is_said(net: TeacherSupernet, teacher: Teacher, data: Data) -> None:
    with pytest.raises(SettingError, match=r"search\.engine='gates'.*leave space out"):
        Config(space="digits", search=SearchConfig(engine="gates"))
    streams = nas_kd.Supernet(nas_kd.teacher_space(teacher, data, (0.5,), residual=True))
    named = nas_kd.Supernet(nas_kd.load_space("digits"), num_classes=10, in_chans=1)
    budget = budget_of(net, 0.5)
    with pytest.raises(SettingError, match=r"search\.engine='gates'.*derive\.residual"):
        check_gates(streams, teacher, budget)
    with pytest.raises(SettingError, match=r"search\.engine='gates'.*made from the teacher"):
        check_gates(named, teacher, budget)
    with pytest.raises(SettingError, match=r"search\.engine='gates'.*runs on every batch"):
        check_gates(net, None, budget)
    with pytest.raises(SettingError, match=r"search\.engine='gates'.*search\.max_macs"):
        check_gates(net, teacher, Budget(net.space, COST, {}))


def test_reports_know_which_engines_are_guided() -> None:
    assert set(GUIDED) == {name for name, engine in ENGINES.items() if engine.guided}


@pytest.mark.slow
def test_the_command_takes_the_engine_from_search_to_report(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(CONFIG)
    command = [sys.executable, "-m", "nas_kd", "run", "mine.yaml", "--run", "run"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment())
    assert done.returncode == 0, done.stderr
    best = json.loads((tmp_path / "run/search/best.json").read_text())
    assert best["engine"] == "gates" and best["macs"] <= 1_631_872 // 4
    assert (tmp_path / "run/search/gates/gates.json").exists() and (tmp_path / "run/search/tuned.csv").exists()
    assert "gates" in (tmp_path / "run/report/report.html").read_text()
    assert pd.read_csv(tmp_path / "run/retrain/results.csv")["role"].iloc[0] == "found"
