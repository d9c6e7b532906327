"""Texts with other labels, pairs of texts, and the other ways to search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_texts import BAD, GOOD, bert, reviews

import nas_kd
from nas_kd.data import Data
from nas_kd.derive.supernet import TeacherSupernet
from nas_kd.distill.tasks import task_of
from nas_kd.runtime.device import Runtime
from nas_kd.teacher import Teacher
from nas_kd.train.measured import measure

pytest.importorskip("transformers")

SHORT: dict[str, Any] = {"batch_size": 16, "warmup_epochs": 0.1}


def rated(frame: pd.DataFrame) -> pd.DataFrame:
    """Give each text the share of its words that are good or bad."""
    words = frame.text.str.split()
    return frame.assign(label=[3 * sum((w in GOOD) - (w in BAD) for w in row) / len(row) for row in words])


def tagged(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(
        label_good=frame.text.str.contains("|".join(GOOD)).astype(int),
        label_film=frame.text.str.contains("film").astype(int),
        label_town=frame.text.str.contains("town").astype(int),
    ).drop(columns="label")


def paired(frame: pd.DataFrame) -> pd.DataFrame:
    """Pair texts: the label says whether both are of one class."""
    other = frame.sample(frac=1, random_state=1).reset_index(drop=True)
    same = np.where(frame.label == other.label, "same", "other")
    return pd.DataFrame({"text": frame.text, "text_pair": other.text, "label": same})


CASES: dict[str, tuple[Any, dict[str, Any], int]] = {
    "regression": (rated, {}, 1),
    "multilabel": (tagged, {"label": ["label_good", "label_film", "label_town"], "kind": "multilabel"}, 3),
    "pairs": (paired, {}, 2),
}


@pytest.mark.parametrize("name", ["pairs", *(pytest.param(n, marks=pytest.mark.slow) for n in CASES if n != "pairs")])
def test_a_teacher_of_each_is_cut_and_teaches(name: str, tmp_path: Path) -> None:
    change, settings, outputs = CASES[name]
    table = tmp_path / "table.csv"
    change(reviews(400)).to_csv(table, index=False)
    bert(tmp_path / "bert", labels=outputs)
    folder = str(tmp_path / "bert")
    data = nas_kd.load_data(str(table), tokenizer=folder, rate=0.2, select=0.2, **settings)
    assert data.kind == ("classes" if name == "pairs" else name)
    teacher = nas_kd.train_teacher(folder, data, epochs=8, lr=2e-3, **SHORT)
    task, runtime = task_of(data), Runtime()
    known, _ = measure(teacher.network, data.test, task, runtime, None)
    least = {"regression": 0.3, "multilabel": 0.6, "pairs": 0.4}[name]
    assert known[task.measure] > least
    space = nas_kd.teacher_space(teacher, data)
    net = nas_kd.Supernet(space)
    assert isinstance(net, TeacherSupernet)
    tables = nas_kd.rate_units(net, teacher, data, score="replace_one", images=32)
    front = nas_kd.exact_front(tables)
    assert front["score"].is_monotonic_decreasing
    arch = space.sample(seed=4)
    student: Any = nas_kd.retrain(arch, teacher, data, space=space, supernet=net, epochs=2, lr=1e-3, **SHORT)
    batch = next(iter(data.test.clean(8)))
    assert student(batch.x).shape == (8, outputs)
    assert f"test_{task.measure}" in student.info["metrics"]


def test_gates_close_on_texts(text_teacher: Teacher, review_data: Data) -> None:
    space = nas_kd.teacher_space(text_teacher, review_data)
    net = nas_kd.Supernet(space)
    cost = {"resolution": review_data.resolution, "in_chans": 1, "num_classes": 2}
    how: dict[str, Any] = {"engine": "gates", "max_macs": "60%", "gate_epochs": 1, "trials": 1, "epochs": 0, "tuned": 0}
    tables = nas_kd.rate_units(net, text_teacher, review_data)
    result = nas_kd.search(net, text_teacher, review_data, tables, **how)
    whole = space.cost(space.largest(), **cost).macs
    assert space.cost(result.best, **cost).macs <= 0.6 * whole


def test_a_student_is_cut_again(text_teacher: Teacher, review_data: Data, tmp_path: Path) -> None:
    space = nas_kd.teacher_space(text_teacher, review_data)
    net = nas_kd.Supernet(space)
    arch = space.sample(seed=1)
    student = net.extract(arch, {})
    again = nas_kd.load_teacher(student, name="again").bind(review_data)
    second = nas_kd.teacher_space(again, review_data)
    other: Any = nas_kd.Supernet(second).eval().extract(second.sample(seed=2), {})
    nas_kd.save_student(
        other,
        tmp_path / "s",
        info={"factory": other.factory[0], "factory_kwargs": other.factory[1], "cut": other.cut_plan.to_dict()},
    )
    x = next(iter(review_data.test.clean(8))).x
    assert torch.equal(nas_kd.load_student(tmp_path / "s")(x), other(x))
