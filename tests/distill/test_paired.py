"""Pairs of images: the teacher is shown its own image of each pair, and what has no pair is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import nas_kd
from nas_kd.data import Data
from nas_kd.distill import Distiller, Paired, pairs_in
from nas_kd.distill.paired import PairedView, Pairs
from nas_kd.errors import SettingError
from nas_kd.teacher import Teacher, as_targets
from nas_kd.teacher.cifar_resnet import cifar_resnet8

CLASSES = ("left", "right")
SIZE = 8


def folders(root: Path) -> None:
    """Write colour images, and grey ones of the same names that say the class: another ending, another size."""
    rng = np.random.default_rng(0)
    for place, name in enumerate(CLASSES):
        for kind in ("colour", "grey"):
            (root / kind / name).mkdir(parents=True)
        for number in range(20):
            colour = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
            Image.fromarray(colour).save(root / "colour" / name / f"{number}.png")
            grey = np.full((2 * SIZE, 2 * SIZE), 40 + 5 * number + 100 * place, dtype=np.uint8)
            Image.fromarray(grey).save(root / "grey" / name / f"{number}.bmp")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pairs")
    folders(root)
    return root


@pytest.fixture(scope="module")
def colour(root: Path) -> Data:
    return nas_kd.load_data(root / "colour", rate=0.2, select=0.2, views=2)


@pytest.fixture(scope="module")
def grey(root: Path) -> Data:
    return nas_kd.load_data(root / "grey", seed=7)  # other splits


def teacher(grey: Data) -> Teacher:
    torch.manual_seed(0)
    return nas_kd.load_teacher(cifar_resnet8(num_classes=2, in_chans=1)).bind(grey)


def value(data: Data, image: torch.Tensor) -> int:
    """Return the grey of an image of one grey."""
    pixel = (image * torch.tensor(data.std).view(-1, 1, 1) + torch.tensor(data.mean).view(-1, 1, 1)) * 255
    assert float(pixel.std()) < 0.01
    return round(float(pixel.mean()))


def grey_of(name: str) -> int:
    home, file = name.split("/")
    return 40 + 5 * int(file.split(".")[0]) + 100 * CLASSES.index(home)


@pytest.mark.parametrize("split", ["train", "rate", "select", "test"])
def test_each_image_has_the_one_of_its_name(colour: Data, grey: Data, split: str) -> None:
    pairs = Pairs(grey).bind(colour)
    names = getattr(colour, split).names
    index = torch.randperm(len(names), generator=torch.Generator().manual_seed(1))
    shown = pairs.shown(split, index)
    assert shown.shape == (len(names), 1, 2 * SIZE, 2 * SIZE)
    assert [value(grey, image) for image in shown] == [grey_of(names[at]) for at in index.tolist()]


def test_images_of_one_name_in_train_and_test_are_told_apart(tmp_path: Path) -> None:
    """In folders of their own each split counts its images from 0."""
    rng = np.random.default_rng(1)
    for number, split in enumerate(("train", "test")):
        for place, name in enumerate(CLASSES):
            for kind in ("colour", "grey"):
                (tmp_path / kind / split / name).mkdir(parents=True)
            for image in range(20 - 8 * number):
                colour = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
                Image.fromarray(colour).save(tmp_path / "colour" / split / name / f"{image}.png")
                grey = np.full((SIZE, SIZE), 20 + 5 * image + 100 * place + 2 * number, dtype=np.uint8)
                Image.fromarray(grey).save(tmp_path / "grey" / split / name / f"{image}.bmp")
    colour = nas_kd.load_data(tmp_path / "colour", rate=0.2, select=0.2)
    grey = nas_kd.load_data(tmp_path / "grey", rate=0.3, select=0.3, seed=7)  # train is shared out otherwise
    pairs = Pairs(grey).bind(colour)
    for split in ("train", "rate", "select", "test"):
        names = getattr(colour, split).names
        wanted = [grey_of(name) - 20 + 2 * (split == "test") for name in names]
        shown = pairs.shown(split, torch.arange(len(names)))
        assert [value(grey, image) for image in shown] == wanted
    (tmp_path / "grey/train/left/0.bmp").unlink()
    lost = nas_kd.load_data(tmp_path / "grey", rate=0.3, select=0.3, seed=7)
    with pytest.raises(SettingError, match=r"left/0\.png.*a pair of its own: .*left/0\.png has the same"):
        Pairs(lost).bind(colour)
    grey_image = Image.open(tmp_path / "grey/train/left/1.bmp")
    grey_image.save(tmp_path / "grey/train/left/0.bmp")
    grey_image.save(tmp_path / "grey/train/left/2.tif")
    twice = nas_kd.load_data(tmp_path / "grey", rate=0.3, select=0.3, seed=7, duplicates="keep")
    with pytest.raises(SettingError, match=r"left/2\.png.*an image alone of its name: 3 in"):
        Pairs(twice).bind(colour)


def test_a_privileged_teacher_needs_pairs_of_training_images_alone(root: Path, tmp_path: Path) -> None:
    for name in CLASSES:
        (tmp_path / name).mkdir()
        for number in range(3):
            pixels = np.full((SIZE, SIZE, 3), 10 * number + 100 * CLASSES.index(name), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"other_{number}.png")
    data = nas_kd.load_data(root / "colour", test=tmp_path, rate=0.2, select=0.2)
    view = PairedView(str(root / "colour"))
    view.open(None, data)  # type: ignore[arg-type]
    batch = next(iter(data.train.clean(5)))
    assert torch.allclose(view(batch), batch.x, atol=1e-6)


def test_the_teacher_answers_for_its_own_image_whatever_the_students_view(colour: Data, grey: Data) -> None:
    mine = teacher(grey)
    source = Paired(mine, grey).bind(colour)
    for epoch in (0, 1):
        batch = next(iter(colour.train.batches(6, epoch=epoch, seed=0)))
        assert torch.equal(source.logits(batch), mine(source.pairs.shown("train", batch.index)))
    rated = source.split_logits("rate", colour)
    assert rated.shape == (len(colour.rate), 2)
    assert torch.allclose(rated, mine(source.pairs.shown("rate", torch.arange(len(colour.rate)))), atol=1e-6)
    assert mine.fingerprint in source.fingerprint and grey.fingerprint in source.fingerprint


def test_a_student_of_colour_learns_from_a_teacher_of_grey(colour: Data, grey: Data, tmp_path: Path) -> None:
    def model() -> Any:
        torch.manual_seed(1)
        return cifar_resnet8(num_classes=2, in_chans=3)

    how: dict[str, Any] = {"method": "kd", "epochs": 2, "batch_size": 8, "warmup_epochs": 0.5}
    source = Paired(teacher(grey), grey)
    student = nas_kd.retrain(model(), source, colour, run=tmp_path, factory=f"{__name__}:of_colour", **how)
    assert 0 <= student.info["metrics"]["select_agreement"] <= 1  # type: ignore[index,union-attr]
    labels = nas_kd.retrain(model(), None, colour, **how | {"method": "ce"})
    assert not all(map(torch.equal, student.parameters(), labels.parameters()))


def of_colour() -> Any:
    return cifar_resnet8(num_classes=2, in_chans=3)


def test_a_privileged_teacher_sees_a_folder(root: Path, colour: Data) -> None:
    """By name on the command line: as many channels as the student's, here the images turned around."""
    for name in CLASSES:
        (root / "turned" / name).mkdir(parents=True, exist_ok=True)
        for file in (root / "colour" / name).iterdir():
            Image.open(file).rotate(180).save(root / "turned" / name / file.name)
    view = PairedView(str(root / "turned"))
    view.open(None, colour)  # type: ignore[arg-type]
    batch = next(iter(colour.train.clean(5)))
    assert torch.allclose(view(batch), batch.x.flip(2, 3), atol=1e-6)
    assert "turned" in repr(Distiller("privileged", images=str(root / "turned")).recipe)
    torch.manual_seed(0)
    seen: list[int] = []
    source = as_targets(lambda batch: seen.append(len(batch.x)) or torch.zeros(len(batch.x), 2))  # type: ignore[func-returns-value]
    how: dict[str, Any] = {"epochs": 1, "batch_size": 8, "warmup_epochs": 0.5, "method": "privileged"}
    nas_kd.retrain(of_colour(), source, colour, method_settings={"images": str(root / "turned")}, **how)
    assert sum(seen) >= len(colour.train) // 8 * 8


def test_what_is_missing_is_said(root: Path, colour: Data, grey: Data, tmp_path: Path) -> None:
    part = nas_kd.load_data(root / "grey", subset=20, seed=7)
    with pytest.raises(SettingError, match=r"images=.*a pair for each image: \d+ of"):
        Pairs(part).bind(colour)
    digits = nas_kd.load_data("digits", subset=100)
    with pytest.raises(SettingError, match="left, right"):
        Pairs(digits).bind(colour)
    with pytest.raises(SettingError, match=r"privileged\.images='nowhere'.*does not exist"):
        Distiller("privileged", images="nowhere")
    with pytest.raises(SettingError, match=r"privileged\.images=.*leave one"):
        Distiller("privileged", images=str(root / "grey"), view=f"{__name__}:of_colour")
    with pytest.raises(SettingError, match=r"privileged\.images=.*3 channels.*have 1"):
        PairedView(str(root / "grey")).open(None, colour)  # type: ignore[arg-type]


def test_two_columns_name_pairs(root: Path, grey: Data, tmp_path: Path) -> None:
    rows = ["a,b,label"]
    for name in CLASSES:
        rows += [f"{root}/colour/{name}/{n}.png,{name}/{19 - n}.bmp,{name}" for n in range(20)]
    (tmp_path / "pairs.csv").write_text("\n".join(rows))
    data = nas_kd.load_data(tmp_path / "pairs.csv", image="a", label="label")
    pairs = Pairs(grey, pairs_in(tmp_path / "pairs.csv", "a", "b")).bind(data)
    image = value(grey, pairs.shown("train", torch.tensor([0]))[0])
    home, file = data.train.names[0].split("/")[-2:]
    assert image == grey_of(f"{home}/{19 - int(file.split('.')[0])}.png")
    with pytest.raises(SettingError, match="one of a, b, label"):
        pairs_in(tmp_path / "pairs.csv", "a", "c")
