"""Quantised distillation: a student trained through rounding, exported and measured beside what it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import nas_kd
from nas_kd.data import Data
from nas_kd.errors import SettingError
from nas_kd.nn import fake_quant
from nas_kd.runtime.device import Runtime
from nas_kd.teacher import cifar_resnet8

CPU = Runtime("cpu")


@pytest.fixture(scope="module")
def data() -> Data:
    return nas_kd.load_data("digits", subset=300)


@pytest.fixture(scope="module")
def student(data: Data, tmp_path_factory: Any) -> Any:
    run = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    return nas_kd.retrain(cifar_resnet8(10, 1), None, data, run=run, method="ce", epochs=3, batch_size=32, runtime=CPU)


def test_tuned_weights_are_of_the_same_network_and_learned_while_rounded(
    student: Any, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: value.clone() for name, value in student.state_dict().items()}
    seen: list[bool] = []
    real = fake_quant.ActivationRange.observe

    def observe(self: Any, x: torch.Tensor) -> None:
        seen.append(True)
        real(self, x)

    monkeypatch.setattr(fake_quant.ActivationRange, "observe", observe)
    tuned: Any = nas_kd.tune_int8(student, None, data, epochs=1, batch_size=32, runtime=CPU)
    layers = sum(isinstance(module, fake_quant.LAYERS) for module in student.modules())
    assert len(seen) == layers * data.train.steps(32)
    assert list(tuned.state_dict()) == list(before) and tuned.info == student.info and not tuned.training
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert any(not torch.equal(value, before[name]) for name, value in tuned.state_dict().items())
    again: Any = nas_kd.tune_int8(student, None, data, epochs=1, batch_size=32, runtime=CPU)
    assert all(torch.equal(a, b) for a, b in zip(tuned.parameters(), again.parameters(), strict=True))


def test_an_export_measures_it_beside_the_others(student: Any, data: Data, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    teacher = nas_kd.load_teacher(cifar_resnet8(10, 1), num_classes=10, in_chans=1)
    tuned = nas_kd.tune_int8(student, teacher, data, epochs=1, batch_size=32, runtime=CPU)
    made = nas_kd.export(student, "onnx", tmp_path / "s.onnx", int8=data, tuned=tuned)
    assert [row.form for row in made.int8] == [
        "torch eager",
        "onnxruntime",
        "onnxruntime int8",
        "onnxruntime int8 tuned",
    ]
    assert made.int8[2].size == pytest.approx(made.int8[3].size, rel=0.01)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"s.onnx", "s.int8.onnx", "s.int8_tuned.onnx"} <= names and not any(".tuned." in name for name in names)
    again = nas_kd.export(tuned, "onnx", tmp_path / "t.onnx", int8=data)
    assert again.int8[2].score == made.int8[3].score


def test_mistakes_are_told_first(student: Any, data: Data, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="to round"):
        nas_kd.tune_int8(torch.nn.Flatten(), None, data)
    with pytest.raises(SettingError, match=r"retrain\.epochs=0"):
        nas_kd.tune_int8(student, None, data, epochs=0)
    with pytest.raises(SettingError, match="tuned=.*int8=data"):
        nas_kd.export(student, "onnx", tmp_path / "s.onnx", tuned=student)
