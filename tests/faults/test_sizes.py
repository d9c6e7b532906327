"""What is large is looked at by its size, and refused with a message: files, networks, lists of settings."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from torch import nn

import nas_kd
from nas_kd.errors import SettingError
from nas_kd.export import load_student, save_student
from nas_kd.export.factory import build_by
from nas_kd.searcher.amounts import parse_budget
from nas_kd.searcher.shared import journal_trials, persist
from nas_kd.train.config import RetrainConfig
from nas_kd.train.weights import load_weights, save_weights

TERABYTE = 2**40


def grown(path: Path) -> Path:
    """Make a file a terabyte long, of which nothing is on the disk."""
    with open(path, "ab") as file:
        file.truncate(TERABYTE)
    return path


def huge_tensor(path: Path, name: str) -> None:
    """Write a file whose header, and length, claim a tensor of a terabyte."""
    header = json.dumps({name: {"dtype": "F32", "shape": [TERABYTE // 4], "data_offsets": [0, TERABYTE]}}).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + TERABYTE)


@pytest.fixture
def student(tmp_path: Path) -> Path:
    return save_student(
        nn.Linear(3, 2),
        tmp_path / "student",
        info={"factory": "torch.nn:Linear", "factory_kwargs": {"in_features": 3, "out_features": 2}},
    )


@pytest.mark.parametrize("name", ["arch.json", "student.json", "weights.safetensors"])
def test_files_of_a_student(name: str, student: Path) -> None:
    grown(student / name)
    with pytest.raises(SettingError, match=f"{name}.*expected"):
        load_student(student)


def test_tensors_of_a_terabyte(student: Path, tmp_path: Path) -> None:
    huge_tensor(student / "weights.safetensors", "weight")
    with pytest.raises(SettingError, match="weights.safetensors"):
        load_student(student)
    save_weights(nn.Linear(3, 2), tmp_path / "w.safetensors")
    huge_tensor(tmp_path / "w.safetensors", "weight")
    with pytest.raises(SettingError, match="w.safetensors"):
        load_weights(nn.Linear(3, 2), tmp_path / "w.safetensors")


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
def test_checkpoints(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=f"checkpoint=.*{name}"):
        nas_kd.load_teacher("cifar_resnet8", checkpoint=grown(tmp_path / name), num_classes=10)


class Wide(nn.Module):
    """Says when it initialises."""

    made = 0

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, 1))
        self.fill()

    def fill(self) -> None:
        Wide.made += 1


def test_a_network_far_larger_than_its_weights_is_never_initialised() -> None:
    with pytest.raises(SettingError, match="100,000,000 numbers or more, for weights of 10"):
        build_by(f"{__name__}:Wide", {"width": 10**8}, 10)
    assert Wide.made == 0
    assert isinstance(build_by(f"{__name__}:Wide", {"width": 10}, 10), Wide)
    assert isinstance(nn.Linear(3000, 3000), nn.Linear)  # nothing is bounded afterwards


def test_a_factory_of_gigabytes_in_a_student(student: Path) -> None:
    about = json.loads((student / "student.json").read_text(encoding="utf-8"))
    about["factory_kwargs"] = {"in_features": 2**16, "out_features": 2**16}
    (student / "student.json").write_text(json.dumps(about), encoding="utf-8")
    with pytest.raises(SettingError, match="numbers or more"):
        load_student(student)


@pytest.mark.parametrize(
    "lines", [b"[]\n", b'{"op_code": 99}\n', b'{"op_code": 0, "study_name": 5}\n', b"nul\n", b"\xff\n"]
)
def test_an_edited_journal_is_written_again(lines: bytes, tmp_path: Path) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["minimize"])
    study.add_trial(optuna.trial.create_trial(value=1.0))
    path = tmp_path / "study.journal"
    persist(study, path, "s")
    path.write_bytes(lines + path.read_bytes())
    assert isinstance(journal_trials(path, "s"), list)
    assert len(persist(study, path, "s").trials) == 1
    assert len(journal_trials(path, "s")) == 1


def test_a_journal_of_a_terabyte(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="study.journal.*trials.csv"):
        journal_trials(grown(tmp_path / "study.journal"), "s")


def test_thousands_of_losses() -> None:
    with pytest.raises(SettingError, match="retrain.method='20000 losses': expected at most 100 losses"):
        RetrainConfig(method=[["ce", 0.1]] * 20_000)


@pytest.mark.parametrize("value", ["1e400", "1e999999999", "9" * 400, float("inf"), 10**400, "1e18"])
def test_numbers_that_no_budget_has(value: Any) -> None:
    with pytest.raises(SettingError, match="below 1e18"):
        parse_budget(value, 10, "search.max_macs")
    assert parse_budget("1e17", 10, "search.max_macs") == 10**17
