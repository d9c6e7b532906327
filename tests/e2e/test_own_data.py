"""A folder and a tar of the user's own images, a space of their own, a teacher of their own."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from small_run import Said

import nas_kd

SPACE = """\
from nas_kd.blocks import BasicStage, ConvStem, LinearHead
from nas_kd.space import ElasticSpace

SPACE = ElasticSpace(
    name="mine",
    stem=ConvStem(width=8, stride=2),
    stages=(
        BasicStage(widths=(4, 8), depths=(1, 2), mids=(2, 4), stride=1),
        BasicStage(widths=(8, 12), depths=(1, 2), mids=(4, 8), stride=2),
    ),
    head=LinearHead(),
    resolution=16,
)
"""
FACTORY = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, num_classes, in_chans):
        super().__init__()
        self.low = nn.Sequential(nn.Conv2d(in_chans, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.high = nn.Sequential(nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.BatchNorm2d(12), nn.ReLU())
        self.fc = nn.Linear(12, num_classes)

    def forward(self, x):
        return self.fc(self.high(self.low(x)).mean((2, 3)))
"""
MOST = (97868, 4355)  # MACs and parameters: 70 and 90 % of the largest's
CLASSES = ("ash", "beech", "yew")


def _images(folder: Path, count: int, seed: int) -> Path:
    """Three classes that differ in colour."""
    rng = np.random.default_rng(seed)
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 160, (16, 16, 3), dtype=np.uint8)
            pixels[..., label] += 90
            Image.fromarray(pixels).save(folder / name / f"{number:03}.png")
    return folder


@pytest.fixture
def files(tmp_path: Path) -> Path:
    _images(tmp_path / "train", 40, 0)
    with tarfile.open(tmp_path / "test.tar", "w") as tar:
        tar.add(_images(tmp_path / "held", 10, 1), "pictures")
    (tmp_path / "my_space.py").write_text(SPACE)
    settings = {
        "space": str(tmp_path / "my_space.py"),
        "device": "cpu",
        "threads": 1,
        "workers": 1,
        "data": {
            "train": str(tmp_path / "train"),
            "test": str(tmp_path / "test.tar"),
            "rate": 0.2,
            "select": 0.2,
            "views": 2,
        },
        "supernet": {"epochs": 2, "batch_size": 16, "lr": 0.05},
        "blockwise": {"epochs": 1, "batch_size": 16, "calibration_images": 32},
        "search": {
            "max_macs": MOST[0],
            "max_params": MOST[1],
            "trials": 10,
            "top": 1,
            "epochs": 1,
            "calibration_images": 32,
        },
        "retrain": {"epochs": 3, "batch_size": 16, "lr": 0.05, "seeds": 1, "random_students": 1, "band": 0.3},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path


def test_own_images_space_and_teacher(files: Path, nas_kd_main: Callable[..., Said]) -> None:
    run = files / "run"
    Path("own_net.py").write_text(FACTORY)  # in the working folder
    teacher = ("--teacher.model", "own_net:Net", "--teacher.stages", "[low, high]")
    said = nas_kd_main(
        "run", files / "mine.yaml", "--run", run, *teacher, "--teacher.epochs", "3", "--teacher.batch_size", "16"
    )
    assert said.code == 0, said.err
    assert "3 classes, 3 x 16 x 16; images: train" in said.err and "test 30" in said.err
    listed = pd.read_csv(run / "data.csv")
    assert listed["split"].value_counts()["test"] == 30 and len(listed) == 150
    assert {name.split("/")[0] for name in listed["name"]} == set(CLASSES)
    best = json.loads((run / "search/best.json").read_text())
    space = nas_kd.load_space(str(files / "my_space.py"))
    arch = nas_kd.Arch.from_dict(best["arch"])
    cost = space.cost(arch, resolution=16, in_chans=3, num_classes=3)
    largest = space.cost(space.largest(), resolution=16, in_chans=3, num_classes=3)
    assert cost == (best["macs"], best["params"])
    assert cost.macs <= MOST[0] < largest.macs and cost.params <= MOST[1] < largest.params
    results = pd.read_csv(run / "retrain/results.csv")
    student = nas_kd.load_student(run / str(results["folder"].iloc[0]))
    assert student.info["classes"] == list(CLASSES) and student.info["in_chans"] == 3
    told = json.loads((run / "retrain/teacher.json").read_text())
    assert told["name"] == "own_net:Net"

    # the trained teacher's weights serve another run, without training
    given = ("--teacher.checkpoint", run / "teacher/weights.safetensors", "--retrain.random_students", "0")
    said = nas_kd_main("blockwise", files / "mine.yaml", "--run", files / "second", *teacher, *given)
    assert said.code == 0, said.err
    assert "teacher 0/" not in said.err and (files / "second/blockwise/stage_2.csv").exists()
    # and so does a student folder
    again = ("--teacher.model", run / str(results["folder"].iloc[0]))
    said = nas_kd_main("blockwise", files / "mine.yaml", "--run", files / "third", *again)
    assert said.code == 0, said.err


def test_a_teacher_that_answers_live_and_gives_features(files: Path, nas_kd_main: Callable[..., Said]) -> None:
    """Augmentation that no cache can serve, a method of features, no held-out test images."""
    said = nas_kd_main(
        "run",
        files / "mine.yaml",
        "--run",
        files / "run",
        "--data.test",
        "null",
        "--data.augment",
        "rand-m5",
        "--teacher.model",
        "cifar_resnet8",
        "--teacher.epochs",
        "2",
        "--teacher.batch_size",
        "16",
        "--retrain.method",
        "sp",
        "--retrain.epochs",
        "2",
        "--search.sampler",
        "nsga2",
        "--supernet.teacher_weight",
        "0.5",
    )
    assert said.code == 0, said.err
    assert said.err.count("the teacher runs live") >= 1
    assert not list((files / "run").rglob("views.npy"))
    rows = pd.read_csv(files / "run/retrain/results.csv")
    assert rows["test_accuracy"].between(0, 1).all() and rows["test_agreement"].notna().all()
