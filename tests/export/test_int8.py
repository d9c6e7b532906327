"""Quantisation after training: a student of the digits stays as good, and is said beside what it was."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from export_students import student

import nas_kd
from nas_kd.cli import main
from nas_kd.errors import SettingError
from nas_kd.pipeline.config import Config
from nas_kd.runs.run import Run
from nas_kd.teacher import cifar_resnet8
from nas_kd.train.teacher_config import TeacherConfig


def test_eight_bits_answer_like_the_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the command line, on a student in a run, whose images are those of the command too.

    8 bits change an answer in a hundred or fewer; the bounds are ten times that, whatever the student knows.
    """
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    data = nas_kd.load_data("digits")
    run = Run(tmp_path / "run")
    run.record_config(Config(run=str(run.path), teacher=TeacherConfig(model="cifar_resnet8", epochs=1)).to_yaml())
    nas_kd.retrain(cifar_resnet8(10, 1), None, data, run=run, method="ce", epochs=4, batch_size=64)
    folder = run.path / "retrain" / "CifarResNet" / "seed_0" / "student"
    assert f"| test ({len(data.test)}) | accuracy |" in (folder / "README.md").read_text()
    assert main(["export", str(folder), "--int8", "--normalise", "--batch_sizes", "[1]"]) == 0
    said = capsys.readouterr().out
    assert "onnxruntime int8" in said and "accuracy" in said
    assert {path.name for path in (folder / "export").iterdir()} == {
        "student.onnx",
        "student.int8.onnx",
        "student.onnx.json",
        "student.onnx.int8.csv",
        "student.onnx.latency.csv",
    }
    rows = pd.read_csv(folder / "export" / "student.onnx.int8.csv").set_index("form")
    eager, full, small = (rows.loc[name] for name in ("torch eager", "onnxruntime", "onnxruntime int8"))
    assert full["score"] == eager["score"] and full["agreement"] == 1
    assert small["agreement"] > 0.9 and small["score"] > eager["score"] - 0.1
    assert small["size"] < full["size"] / 2
    runtimes = pd.read_csv(folder / "export" / "student.onnx.latency.csv")["runtime"]
    assert list(runtimes) == ["torch eager", "onnxruntime", "onnxruntime int8"]
    assert main(["export", str(folder), "--int8", "--int8_epochs", "1", "--latency", "false"]) == 0
    said = capsys.readouterr().out
    assert "1 epochs of fine-tuning, taught by the unrounded student" in said  # no teacher was trained in this run
    tuned = pd.read_csv(folder / "export" / "student.onnx.int8.csv").set_index("form").loc["onnxruntime int8 tuned"]
    assert tuned["agreement"] > 0.9
    assert main(["export", str(folder), "--int8_epochs", "1"]) == 2
    assert "int8_epochs=1: expected 0 without --int8" in capsys.readouterr().err


def test_torchao_makes_eight_bits_of_a_graph(tmp_path: Path) -> None:
    """As close as ONNX Runtime's; what is stored for a weight is one byte, and the file opens for any batch."""
    pytest.importorskip("torchao")
    data = nas_kd.load_data("digits")
    made = nas_kd.retrain(cifar_resnet8(10, 1), None, data, method="ce", epochs=4, batch_size=64)
    tuned = nas_kd.tune_int8(made, None, data, epochs=1)
    found = nas_kd.export(made, "pt2", tmp_path / "s.pt2", normalise=True, int8=data, tuned=tuned, latency=(1,))
    rows = {row.form: row for row in found.int8}
    assert list(rows) == ["torch eager", "torch.export", "torch.export int8", "torch.export int8 tuned"]
    eager, small, after = (rows[name] for name in ("torch eager", "torch.export int8", "torch.export int8 tuned"))
    for row in (small, after):
        assert row.agreement is not None and row.agreement > 0.9 and row.score > eager.score - 0.1
    assert [row.runtime for row in found.latency] == list(rows)
    program = torch.export.load(tmp_path / "s.int8.pt2")
    stored = {name: tensor for name, tensor in program.state_dict.items() if tensor.dtype == torch.int8}
    layers = [m for m in made.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert sorted(tensor.numel() for tensor in stored.values()) == sorted(layer.weight.numel() for layer in layers)
    assert program.module()(torch.rand(3, 1, 8, 8)).shape == (3, 10)


@pytest.mark.parametrize("calibration", [1, 65])
def test_a_last_batch_of_one_image_is_no_batch_size(calibration: int, tmp_path: Path) -> None:
    pytest.importorskip("torchao")
    data = nas_kd.load_data("digits", subset=200)
    made = nas_kd.retrain(cifar_resnet8(10, 1), None, data, method="ce", epochs=1, batch_size=32)
    nas_kd.export(made, "pt2", tmp_path / "s.pt2", int8=data, calibration=calibration)
    assert torch.export.load(tmp_path / "s.int8.pt2").module()(torch.rand(5, 1, 8, 8)).shape == (5, 10)


def test_a_package_that_is_missing_is_named_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas_kd.export.formats.base.find_spec", lambda name: None)
    data = nas_kd.load_data("digits", subset=100)
    with pytest.raises(SettingError, match=r"int8=True.*torchao is not; hint: pip install 'nas_kd\[torchao\]'"):
        nas_kd.export(student("cifar_resnet8"), "pt2", tmp_path / "s.pt2", int8=data)
    assert not list(tmp_path.iterdir())


def test_mistakes_are_told_first(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    data = nas_kd.load_data("digits", subset=100)
    with pytest.raises(SettingError, match="data.train='1': expected the data that the student was trained on"):
        nas_kd.export(student("cifar_resnet8"), path=tmp_path / "s.onnx", int8=data)
    with pytest.raises(SettingError, match="int8=True: expected false with torchscript: files of onnx, pt2"):
        nas_kd.export(student("cifar_resnet8"), "torchscript", tmp_path / "s.pt", int8=data)
    assert not list(tmp_path.iterdir())
