"""`nas-kd export STUDENT` from a student folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from export_students import student

import nas_kd
from nas_kd.cli import main


def test_a_student_folder_is_exported_with_switches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = nas_kd.save_student(student("cifar_resnet8"), tmp_path / "s")
    words = [
        "export",
        str(folder),
        "--to",
        "torchscript",
        "--normalise",
        "--softmax",
        "true",
        "--batch_sizes",
        "[1, 2]",
    ]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "student.pt: outputs differ by at most" in said and "100 % of answers equal" in said
    assert "torch eager" in said and "TorchScript" in said and "batch 2, ms" in said and "threads" in said
    assert (folder / "export" / "student.pt.latency.csv").is_file()
    assert (
        main(
            [
                "export",
                "--student",
                str(folder),
                "--to=torchscript",
                "--latency",
                "false",
                "--path",
                str(tmp_path / "x"),
            ]
        )
        == 0
    )
    assert "threads" not in capsys.readouterr().out and (tmp_path / "x").is_file()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "student=None"),
        (["nowhere"], "student='nowhere'"),
        (["."], "arch.json"),
        ([".", "--to", "onx"], "did you mean 'onnx'"),
        ([".", "--tolerance", "-1"], "tolerance=-1"),
        ([".", "--sofmax"], "softmax"),
        ([".", "more"], "leave one out"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", *arguments]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and part in error
    assert not list(tmp_path.iterdir())


def test_settings_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path), "--normalise", "--print_config"]) == 0
    assert "normalise: true" in capsys.readouterr().out
