"""Cuts in steps: each keeps its part of the way in shares of the original teacher, which teaches in all of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import nas_kd
from nas_kd.data import Data, load_data
from nas_kd.derive.supernet import TeacherSupernet
from nas_kd.errors import SettingError
from nas_kd.runs.files import read_frame
from nas_kd.searcher import steps
from nas_kd.searcher.config import SearchConfig
from nas_kd.searcher.steps import cut_in_steps
from nas_kd.teacher import Teacher
from nas_kd.train import weights_hash
from nas_kd.train.config import RetrainConfig

IMAGES = 192  # for ratings around an arch
TEMPERATURE = 4.0
SHAPE = {"resolution": 8, "in_chans": 1, "num_classes": 10}
Made = tuple[Teacher, Data, int]


@pytest.fixture(scope="module")
def made() -> Made:
    data = load_data("digits", subset=600, rate=0.2, select=0.2, views=2)
    torch.manual_seed(0)
    teacher = nas_kd.train_teacher("cifar_resnet14", data, epochs=2, batch_size=32, lr=0.1)
    space = nas_kd.teacher_space(teacher, data)
    return teacher, data, space.cost(space.largest(), **SHAPE).macs


def cut(made: Made, count: int, share: float, run: Path | None = None) -> TeacherSupernet:
    teacher, data, whole = made
    net = nas_kd.Supernet(nas_kd.teacher_space(teacher, data))
    assert isinstance(net, TeacherSupernet)
    config = SearchConfig(steps=count, rerate=2)
    training = RetrainConfig(batch_size=32)
    return cut_in_steps(net, teacher, data, config, upper={"macs": int(share * whole)}, training=training, run=run)


@pytest.fixture(scope="module")
def thrice(made: Made, tmp_path_factory: pytest.TempPathFactory) -> tuple[TeacherSupernet, Path]:
    run = tmp_path_factory.mktemp("steps")
    return cut(made, 3, 0.125, run), run / "steps"


def test_each_step_goes_its_part_of_the_way(made: Made, thrice: tuple[TeacherSupernet, Path]) -> None:
    teacher, _, whole = made
    net, folder = thrice
    rows = pd.read_csv(folder / "steps.csv")
    assert rows["step"].tolist() == [1, 2]
    for most, share in zip(rows["max_macs"], (0.5, 0.25), strict=True):
        assert most == pytest.approx(share * whole, abs=2)
    assert (rows["macs"] <= rows["max_macs"]).all() and (rows["macs"] > 0.8 * rows["max_macs"]).all()
    assert rows["macs_percent"].tolist() == pytest.approx((100 * rows["macs"] / whole).tolist())
    assert net.space.cost(net.space.largest(), **SHAPE)._asdict() == rows[["macs", "params"]].iloc[-1].to_dict()
    for step in (1, 2):
        facts = json.loads((folder / f"step_{step}/retrain/stage.json").read_text())["inputs"]
        assert (facts["teacher"], facts["retrain.epochs"]) == (teacher.fingerprint, 1)
        assert (folder / f"step_{step}/blockwise/stage_1.csv").is_file()


def test_the_last_space_is_of_the_student(made: Made, thrice: tuple[TeacherSupernet, Path]) -> None:
    _, data, _ = made
    net, folder = thrice
    student = nas_kd.load_student(folder / "step_2/retrain/student").to(memory_format=torch.channels_last)
    x = next(iter(data.test.clean(64))).x
    with torch.no_grad():
        assert torch.equal(net.eval()(x, net.space.largest(), norm=net.space.norm), student(x))  # type: ignore[attr-defined]


def test_what_is_lost_is_lost_to_the_original_teacher(made: Made, thrice: tuple[TeacherSupernet, Path]) -> None:
    teacher, data, _ = made
    _, folder = thrice
    rows = read_frame(folder / "steps.csv")  # to the bit: older pandas rounds
    first = nas_kd.load_student(folder / "step_1/retrain/student")
    about: dict[str, Any] = {"num_classes": 10, "in_chans": 1, "mean": teacher.mean, "std": teacher.std}
    between = Teacher(first, f"{teacher.name}-{rows['key'][0]}", **about).bind(data)
    net = nas_kd.Supernet(nas_kd.teacher_space(between, data))
    assert isinstance(net, TeacherSupernet)
    nas_kd.repair_units(net, between, data, run=folder / "step_1")  # read back
    found = json.loads((folder / "step_2/cut/best.json").read_text())
    x = torch.cat([batch.x for batch in data.rate.clean(IMAGES, limit=IMAGES)])
    with torch.no_grad():
        got = net.train()(x, nas_kd.Arch.from_dict(found["arch"])) / TEMPERATURE
        want = teacher(x) / TEMPERATURE
    gap = float((want.softmax(1) * (want.log_softmax(1) - got.log_softmax(1))).sum(1).mean())
    assert found["kl"] == pytest.approx(gap, rel=1e-3) and found["kl"] == rows["kl"][1]


def test_it_goes_on_where_it_stopped(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    want = weights_hash(cut(made, 2, 0.2, tmp_path / "whole"))
    with monkeypatch.context() as patch:
        patch.setattr(steps, "repair_units", lambda *args, **more: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            cut(made, 2, 0.2, tmp_path / "run")

    def never(*args: Any, **more: Any) -> Any:
        raise AssertionError("what is done is done again")

    monkeypatch.setattr(steps, "archs_around", never)
    assert weights_hash(cut(made, 2, 0.2, tmp_path / "run")) == want
    with pytest.raises(SettingError, match=r"^bounds="):
        cut(made, 2, 0.3, tmp_path / "run")


def test_a_search_is_one_step(made: Made) -> None:
    teacher, data, whole = made
    net = nas_kd.Supernet(nas_kd.teacher_space(teacher, data))
    tables = nas_kd.rate_units(net, teacher, data, images=32)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match=r"^search\.steps=2.*cut_in_steps"):
        nas_kd.search(net, teacher, data, tables, max_macs=whole // 5, steps=2)
    with pytest.raises(SettingError, match=r"^search\.steps=2.*search\.max_macs"):
        SearchConfig(steps=2, max_macs=None)
    with pytest.raises(SettingError, match=r"^upper="):
        cut_in_steps(net, teacher, data, upper={})  # type: ignore[arg-type]
