"""A network of the user's own code as the teacher, and its space: the students are cut from it, and load again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from small_run import Said
from torch import nn

import nas_kd
from nas_kd.data import Data
from nas_kd.errors import SettingError
from nas_kd.export.factory import check_untrusted

CODE = """\
from torch import nn


class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.low = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.high = nn.Sequential(
            nn.Conv2d(8, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 8, 3, padding=1)
        )
        self.fc = nn.Linear(8, classes)

    def forward(self, x):
        x = self.low(x)
        return self.fc((x + self.high(x)).mean((2, 3)))


def net(num_classes=7, depth="ignored"):
    return Net(num_classes)
"""
WHOLE = 3722  # parameters of the network
CONFIG = """\
device: cpu
threads: 1
workers: 2
data: {train: digits, subset: 300, rate: 0.15, select: 0.15, views: 1}
teacher: {epochs: 2, batch_size: 32, lr: 0.1}
search: {max_macs: 50%, trials: 4, top: 1, epochs: 0, tuned: 0}
retrain: {epochs: 1, batch_size: 32, seeds: 1, random_students: 0, rivals: []}
"""


def test_students_are_cut_from_it_and_load_by_its_name(tmp_path: Path, nas_kd_main: Callable[..., Said]) -> None:
    Path("own_code.py").write_text(CODE)  # in the working folder
    (tmp_path / "mine.yaml").write_text(CONFIG)
    said = nas_kd_main("run", tmp_path / "mine.yaml", "--run", tmp_path / "run", "--teacher.model", "own_code:net")
    assert said.code == 0, said.err
    results = pd.read_csv(tmp_path / "run/retrain/results.csv").set_index("role")
    folder = tmp_path / "run" / str(results.folder["found"])
    with pytest.raises(SettingError, match=r"factory='own_code:net'.*load_student\(folder, factory='own_code:net'\)"):
        nas_kd.load_student(folder)  # a folder names code, and runs none
    student = nas_kd.load_student(folder, factory="own_code:net")
    assert student.info["factory_kwargs"] == {"num_classes": 10}
    assert sum(p.numel() for p in student.parameters()) == results.params["found"] < WHOLE
    assert type(student).__name__ == "Net" and student(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    said = nas_kd_main("export", folder, "--to", "pt2", "--latency", "false")
    assert said.code == 2 and "--factory own_code:net" in said.err
    said = nas_kd_main("export", folder, "--to", "pt2", "--latency", "false", "--factory", "own_code:net")
    assert said.code == 0, said.err


def test_a_factory_that_is_not_found_is_one_to_name(tmp_path: Path) -> None:
    """An installed command does not look into the working folder for what a student folder names."""
    legal = r"No module named 'not_here'.*install.*export FOLDER --factory not_here:net"
    with pytest.raises(SettingError, match=legal):
        check_untrusted("not_here:net", tmp_path)


class Bare(nn.Module):
    """A network of which nobody said how it is made."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.ReLU())
        self.fc = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(x).mean((2, 3)))


def test_a_module_without_a_factory_is_refused_before_its_subnets_are_scored(tmp_path: Path) -> None:
    data: Data = nas_kd.load_data("digits", subset=200, rate=0.2, select=0.2, views=1)
    teacher = nas_kd.load_teacher(Bare())
    space = nas_kd.teacher_space(teacher, data)
    net = nas_kd.Supernet(space)
    tables = nas_kd.rate_units(net, teacher, data, images=16)
    how = {"tables": tables, "teacher": teacher, "data": data, "max_macs": "60%", "trials": 4, "epochs": 1}
    with pytest.raises(SettingError, match=r"factory=None.*set that pair as network\.factory"):
        nas_kd.search(net, run=tmp_path / "run", **how)
    assert not (tmp_path / "run/search/trials.csv").exists()
    untrained = {"tuned": 0, "epochs": 0}
    assert nas_kd.search(net, run=tmp_path / "run", **how | untrained).best in space  # nothing has to be rebuilt
