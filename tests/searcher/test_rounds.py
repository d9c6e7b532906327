"""DNA+: the student that the ratings of a round find is trained, and teaches the next one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import nas_kd
from nas_kd.data import Data
from nas_kd.errors import SettingError
from nas_kd.export import load_student
from nas_kd.rate import rate_blockwise
from nas_kd.runtime.device import Runtime
from nas_kd.solve import exact_front
from nas_kd.space import ElasticSpace
from nas_kd.supernet import Supernet
from nas_kd.teacher import Teacher
from nas_kd.train.blockwise_config import BlockwiseConfig

RATING = BlockwiseConfig(epochs=1, batch_size=16, calibration_images=32)


@pytest.fixture
def small(net: Supernet, teacher: Teacher, data: Data, runtime: Runtime, space: ElasticSpace) -> dict[str, Any]:
    cost = {"resolution": data.resolution, "in_chans": data.in_chans, "num_classes": data.num_classes}
    upper = {"macs": int(0.6 * space.cost(space.largest(), **cost).macs)}
    how = nas_kd.RetrainConfig(epochs=2, batch_size=16, warmup_epochs=0.5, method="kd")
    return {"net": net, "teacher": teacher, "data": data, "upper": upper, "rating": RATING, "training": how} | {
        "runtime": runtime
    }


def test_the_best_rated_chain_of_a_round_teaches_the_next(small: dict[str, Any], tmp_path: Path) -> None:
    found = nas_kd.teacher_rounds(**small, rounds=2, run=tmp_path)
    tables = rate_blockwise(small["net"], small["teacher"], small["data"], RATING, runtime=small["runtime"])
    front = exact_front(tables, budget="macs")
    best = front[front["macs"] <= small["upper"]["macs"]].sort_values("score").iloc[0]
    row = pd.read_csv(tmp_path / "rounds/rounds.csv", dtype={"key": str}).iloc[0]
    assert (row["macs"], row["params"]) == (best["macs"], best["params"])
    student = load_student(tmp_path / "rounds/round_1/retrain/student")
    x = next(iter(small["data"].rate.clean(16))).x
    assert torch.equal(found(x), student(x)) and not torch.equal(found(x), small["teacher"](x))
    assert row["key"] in found.name and row["teacher"] == small["teacher"].name
    again = nas_kd.teacher_rounds(**small, rounds=3, run=tmp_path)  # goes on, taught by the student of the first
    rows = pd.read_csv(tmp_path / "rounds/rounds.csv", dtype={"key": str})
    assert rows["key"].iloc[0] == row["key"] and rows["teacher"].tolist() == [small["teacher"].name, found.name]
    assert again.fingerprint != found.fingerprint
    ratings = [pd.read_csv(tmp_path / f"rounds/round_{n}/blockwise/stage_1.csv")["score"] for n in (1, 2)]
    assert not ratings[0].equals(ratings[1])


def test_one_round_is_the_teachers_own(small: dict[str, Any]) -> None:
    assert nas_kd.teacher_rounds(**small, rounds=1) is small["teacher"]


def test_what_cannot_be_is_said(small: dict[str, Any], teacher: Teacher, data: Data) -> None:
    with pytest.raises(SettingError, match=r"search\.rounds_of_teachers=0"):
        nas_kd.teacher_rounds(**small, rounds=0)
    derived = Supernet(nas_kd.teacher_space(teacher, data))
    with pytest.raises(SettingError, match=r"search\.rounds_of_teachers=2.*search\.steps"):
        nas_kd.teacher_rounds(**small | {"net": derived}, rounds=2)
