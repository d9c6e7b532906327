"""Odd but legal: whole runs on few images of strange sizes and channels, in places with strange names."""

from __future__ import annotations

import re
import tarfile
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from forks import Forks
from PIL import Image

import nas_kd
from nas_kd.blocks import BasicStage, ConvStem, LinearHead
from nas_kd.space import ElasticSpace
from nas_kd.teacher import CifarResNet

SPACE = """\
from nas_kd.blocks import BasicStage, ConvStem, LinearHead
from nas_kd.space import ElasticSpace

SPACE = ElasticSpace(
    "ödd <i>space</i>",
    ConvStem(width={width}),
    (
        BasicStage(widths=({low}), depths=(1,), mids=({mids}), stride=2),
        BasicStage(widths=({high},), depths=(1,), mids=({high},), stride=2),
    ),
    LinearHead(),
    resolution=8,
)
"""
TRAINED = {"epochs": 1, "warmup_epochs": 0}


class Tags(HTMLParser):
    """Collects what a browser would make of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.names: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        own = tag == "img" and str(dict(attrs).get("src")).startswith("data:image/png;base64,")  # of the report
        self.tags.add("own img" if own else tag)
        self.names |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def tags(path: Path) -> Tags:
    found = Tags()
    found.feed(path.read_text())
    return found


def images(folder: Path, classes: dict[str, int], mode: str, size: tuple[int, int]) -> Path:
    """Write images (H, W) of a PIL mode, so many a class."""
    rng = np.random.default_rng(0)
    bands = len(Image.new(mode, (1, 1)).getbands())
    for label, (name, count) in enumerate(classes.items()):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 200, (*size, bands), dtype=np.uint8) + np.uint8(20 * label)
            Image.fromarray(pixels[..., 0] if bands == 1 else pixels, mode).save(folder / name / f"bïld {number}.png")
    return folder


def run(fork: Forks, folder: Path, settings: dict[str, object]) -> tuple[Path, str]:
    """Run `nas-kd run` without a terminal and without colours.

    Args:
        fork: starts it.
        folder: where config and run lie.
        settings: the config.

    Returns:
        The run folder and what was said.
    """
    config, target = folder / "sonderbare Köpfe 奇.yaml", folder / "läufe & <b>more</b>" / "run 1"
    config.write_text(yaml.safe_dump(settings))
    env = {"NO_COLOR": "1", "TERM": "dumb"}
    code, said = fork("run", config, "--run", target, env=env, cwd=folder)
    assert code == 0, said
    assert "\x1b" not in said and "Traceback" not in said
    return target, said


def test_a_class_of_four_colour_images_with_alpha_in_batches_of_one(tmp_path: Path, fork: Forks) -> None:
    """Also: images that are not square, paths with spaces and all alphabets, markup in the names of classes."""
    folder = tmp_path / "meine Bilder – 画像"
    folder.mkdir()
    classes = {"<script>alert('x')<": 4, "Ж & <img src=x onerror=alert(1)>": 8, "three\"'": 8}
    train = images(folder / "bilder 写真", classes, "RGBA", (9, 13))
    (folder / "mein raum.py").write_text(SPACE.format(width=8, low="4, 8", mids="4, 8", high=8))
    batch = TRAINED | {"batch_size": 1}
    target, said = run(
        fork,
        folder,
        {
            "space": str(folder / "mein raum.py"),
            "device": "cpu",
            "threads": 1,
            "workers": 1,
            "data": {"train": str(train), "rate": 0.2, "select": 0.2, "resolution": 8, "views": 2},
            "teacher": {"model": "cifar_resnet8", **batch},
            "supernet": {"lr": 0.01, **batch},
            "blockwise": {"epochs": 1, "batch_size": 1, "calibration_images": 2},
            "search": {"trials": 3, "top": 1, "epochs": 1, "max_macs": None, "calibration_images": 2},
            "retrain": {"seeds": 1, "random_students": 1, "band": 0.9, **batch},
        },
    )
    assert "3 classes, 3 x 8 x 8" in said
    listed = pd.read_csv(target / "data.csv")
    few = listed[listed["name"].str.startswith("<script>")]
    assert sorted(few["split"]) == ["rate", "select", "test", "train"]
    results = pd.read_csv(target / "retrain/results.csv")
    student = nas_kd.load_student(target / str(results["folder"].iloc[0]))
    assert set(student.info["classes"]) == set(classes)
    page = tags(target / "report/report.html")
    assert not page.tags & {"script", "img", "iframe", "i", "b"} and "onerror" not in page.names
    assert "ödd <i>space</i>" in page.text and "<b>more</b>" in page.text


def test_one_arch_on_grey_images_of_a_tar_with_a_teacher_smaller_than_it(tmp_path: Path, fork: Forks) -> None:
    """Also: one candidate a stage, one epoch of everything, two classes."""
    with tarfile.open(tmp_path / "grau.tar", "w") as tar:
        tar.add(images(tmp_path / "x", {"a": 8, "b": 9}, "L", (8, 8)), "grau")
    (tmp_path / "eins.py").write_text(SPACE.format(width=16, low="48,", mids="48,", high=64))
    space = nas_kd.load_space(str(tmp_path / "eins.py"))
    assert space.size == 1
    cost = space.cost(space.largest(), resolution=8, in_chans=1, num_classes=2)
    teacher = CifarResNet(8, 2, 1)
    assert cost.params > sum(p.numel() for p in teacher.parameters())
    batch = TRAINED | {"batch_size": 4}
    target, said = run(
        fork,
        tmp_path,
        {
            "space": str(tmp_path / "eins.py"),
            "device": "cpu",
            "threads": 1,
            "workers": 1,
            "data": {"train": str(tmp_path / "grau.tar"), "rate": 0.2, "select": 0.2, "views": 2},
            "teacher": {"model": "cifar_resnet8", **batch},
            "supernet": {"lr": 0.01, **batch},
            "blockwise": {"epochs": 1, "batch_size": 4, "calibration_images": 2},
            "search": {"trials": 3, "epochs": 1, "max_macs": "100%", "calibration_images": 2},
            "retrain": {"seeds": 1, **batch},
        },
    )
    assert "2 classes, 1 x 8 x 8" in said
    for stage in (1, 2):
        assert len(pd.read_csv(target / f"blockwise/stage_{stage}.csv")) == 1
    results = pd.read_csv(target / "retrain/results.csv")
    assert results["key"].dropna().nunique() == 1
    columns = set(pd.read_csv(next(target.glob("retrain/*/seed_0/metrics.csv"))).columns)
    assert "kd" in columns and "kd_ls" not in columns  # the default
    assert tags(target / "report/report.html").tags >= {"table", "svg"}


def test_images_of_one_colour_are_refused_before_anything_trains(tmp_path: Path, fork: Forks) -> None:
    for name in ("a", "b"):
        (tmp_path / "x" / name).mkdir(parents=True)
        for number in range(20):
            Image.new("RGB", (8, 8), (90, 90, 90)).save(tmp_path / "x" / name / f"{number}.png")
    target = tmp_path / "run"
    settings = ("--space", "resnet_cifar", "--teacher.model", "cifar_resnet8", "--teacher.epochs", "1")
    code, said = fork("run", "--data.train", tmp_path / "x", "--run", target, *settings, "--threads", "1")
    assert code == 2, said
    assert "all pixels of all training images have one value; hint: look at the files" in said
    assert not list(target.rglob("*.safetensors"))


def test_tensors_of_four_channels(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(256, (40, 4, 8, 8), generator=generator, dtype=torch.uint8)
    data = nas_kd.load_data((x, torch.arange(40) % 2), rate=0.2, select=0.2, views=2)
    assert data.in_chans == 4 and len(data.mean) == 4
    space = ElasticSpace(
        "four",
        ConvStem(width=4),
        (BasicStage(widths=(4,), depths=(1,), mids=(2, 4), stride=2),),
        LinearHead(),
        resolution=8,
    )
    net = nas_kd.Supernet(space, 2, 4)
    nas_kd.train_supernet(net, data, run=tmp_path / "run", epochs=1, batch_size=8, warmup_epochs=0.0)
    teacher = nas_kd.load_teacher(CifarResNet(8, 2, 4), num_classes=2, in_chans=4).bind(data)
    teacher.match(space, 8)
    tables = nas_kd.rate_blockwise(
        net, teacher, data, run=tmp_path / "run", epochs=1, batch_size=8, calibration_images=8
    )
    front = nas_kd.exact_front(tables, budget="macs")
    assert front["macs"].iloc[-1] == space.cost(space.largest(), resolution=8, in_chans=4, num_classes=2).macs
    student = nas_kd.retrain(
        space.build(space.largest(), num_classes=2, in_chans=4),
        teacher,
        data,
        run=tmp_path / "run",
        method="kd",
        epochs=1,
        batch_size=8,
        warmup_epochs=0,
    )
    assert student(torch.zeros(1, 4, 8, 8)).shape == (1, 2)


@pytest.mark.parametrize("name", ["TERM", "COLUMNS"])
def test_a_terminal_that_is_none(name: str, tmp_path: Path, fork: Forks) -> None:
    env = {name: "0" if name == "COLUMNS" else ""}
    code, said = fork("describe", "--space", "digits", "--data.subset", "300", env=env, cwd=tmp_path)
    assert code == 0 and re.search(r"46,656 archs", said), said
