"""Images that cannot be read, and data that changed between two commands."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from small_run import Said, changes, digests

from nas_kd.data import Data, load_data
from nas_kd.data.image import Decoder
from nas_kd.data.pixels import Part, decode
from nas_kd.data.source import VisionSource
from nas_kd.errors import SettingError
from nas_kd.runs.run import Run

Main = Callable[..., Said]
SIZE, CLASSES, EACH = 16, 3, 12
PNG = ("class0/3.png", "class1/0.png", "class2/11.png")  # damaged in three ways


def images(root: Path, kind: str = "png", seed: int = 0) -> Path:
    """Write class folders of random images."""
    rng = np.random.default_rng(seed)
    for label in range(CLASSES):
        folder = root / f"class{label}"
        folder.mkdir(parents=True)
        for number in range(EACH):
            pixels = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.{kind}")
    return root


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Class folders in which three files are no whole images: text, cut in the middle, and a spoiled checksum."""
    root = images(tmp_path / "damaged")
    (root / PNG[0]).write_bytes(b"not an image")
    data = (root / PNG[1]).read_bytes()
    (root / PNG[1]).write_bytes(data[: len(data) // 2])
    spoiled = bytearray((root / PNG[2]).read_bytes())
    spoiled[len(spoiled) // 2] ^= 255  # the header and the end are whole: only a decoder finds it
    (root / PNG[2]).write_bytes(spoiled)
    return root


SETTINGS: dict[str, Any] = {"rate": 0.2, "select": 0.2, "views": 2, "pad": 1}


def pixels(data: Data) -> dict[str, torch.Tensor]:
    """Collect every image by name, as it is shown unchanged, without the normalisation of its set."""
    mean, std = (torch.tensor(part)[:, None, None] for part in (data.mean, data.std))
    found = {}
    for split in data.splits:
        for batch in split.clean(8):
            shown = ((batch.x * std + mean) * 255).round()
            found |= {split.names[i]: x for i, x in zip(batch.index.tolist(), shown, strict=True)}
    return found


@pytest.mark.parametrize("memory_gib", [4.0, 0.0])
def test_unreadable_images_are_named_or_left_out(damaged: Path, memory_gib: float) -> None:
    with pytest.raises(SettingError, match=r"class0/3\.png.*data\.unreadable=skip"):
        load_data(damaged, memory_gib=memory_gib, **SETTINGS)
    data = load_data(damaged, memory_gib=memory_gib, unreadable="skip", **SETTINGS)
    assert [name for name, _ in data.unreadable] == list(PNG) and [c for _, c in data.unreadable] == [0, 1, 2]
    shown = pixels(data)
    assert len(shown) == sum(map(len, data.splits)) == CLASSES * EACH - 3 and not set(PNG) & set(shown)
    frame = data.frame()
    lost = frame[frame["split"] == "unreadable"]
    assert list(lost["name"]) == list(PNG) and list(lost["label"]) == [0, 1, 2] and len(frame) == CLASSES * EACH
    # what is left is as if they had never been there
    for name in PNG:
        (damaged / name).unlink()
    clean = load_data(damaged, memory_gib=memory_gib, **SETTINGS)
    assert clean.fingerprint == data.fingerprint and clean.mean == data.mean
    for name, image in pixels(clean).items():
        assert torch.equal(image, shown[name]), name


def test_a_test_set_is_looked_through_too(damaged: Path, tmp_path: Path) -> None:
    good = images(tmp_path / "good", seed=1)
    data = load_data(good, test=damaged, unreadable="skip", **SETTINGS)
    assert len(data.unreadable) == 3 and len(data.test) == CLASSES * EACH - 3
    assert len(data.train) + len(data.rate) + len(data.select) == CLASSES * EACH
    whole = load_data(good, unreadable="skip", **SETTINGS)
    assert whole.unreadable == () and whole.fingerprint == load_data(good, **SETTINGS).fingerprint


def test_what_is_left_travels_to_workers(damaged: Path) -> None:
    import pickle

    data = load_data(damaged, memory_gib=0.0, unreadable="skip", **SETTINGS)
    there = pickle.loads(pickle.dumps(data))
    ours, theirs = (next(iter(d.train.clean(8))) for d in (data, there))
    assert torch.equal(ours.x, theirs.x) and there.unreadable == data.unreadable


def test_a_class_that_loses_all_is_named(damaged: Path) -> None:
    for path in (damaged / "class1").iterdir():
        path.write_bytes(b"")
    with pytest.raises(SettingError, match="class 'class1' has 0"):
        load_data(damaged, unreadable="skip", **SETTINGS)
    with pytest.raises(SettingError, match="data.unreadable='skipp'.*did you mean 'skip'"):
        load_data(damaged, unreadable="skipp", **SETTINGS)


def _swapped(path: Path) -> None:
    """Change one image's pixels and nothing else: not its name, and not the size of its file."""
    with Image.open(path) as image:
        old, kind = np.asarray(image).copy(), image.format
    before, rng = path.stat().st_size, np.random.default_rng(1)
    for _ in range(2000):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, old.shape, dtype=np.uint8)).save(file, format=kind)
        if len(file.getvalue()) == before:
            path.write_bytes(file.getvalue())
            return
    raise AssertionError("no image of equal size")


@pytest.mark.parametrize("kind", ["png", "jpg"])
@pytest.mark.parametrize("memory_gib", [4.0, 0.0])
def test_other_pixels_of_the_same_name_and_size_are_noticed(tmp_path: Path, memory_gib: float, kind: str) -> None:
    root = images(tmp_path / "data", kind)
    before = load_data(root, memory_gib=memory_gib, **SETTINGS)
    assert load_data(root, memory_gib=memory_gib, **SETTINGS).fingerprint == before.fingerprint
    _swapped(root / f"class1/5.{kind}")
    assert load_data(root, memory_gib=memory_gib, **SETTINGS).fingerprint != before.fingerprint


@pytest.mark.parametrize(("kind", "place"), [("BMP", 100), ("PPM", 100), ("JPEG", 30)])
def test_a_byte_in_the_middle_of_a_file_is_noticed(tmp_path: Path, kind: str, place: int) -> None:
    """A pixel, or the factor that a JPEG's pixels are multiplied with: length and last bytes stay as they were."""
    root = images(tmp_path / "data")
    file = root / "class1/5.png"
    with Image.open(file) as image:
        image.save(file, format=kind)  # the name ends as it did: files are read as what they are
    before = load_data(root, memory_gib=0, **SETTINGS)
    content = bytearray(file.read_bytes())
    content[place] ^= 16
    with Image.open(file) as old, Image.open(io.BytesIO(content)) as new:
        assert not np.array_equal(np.asarray(old), np.asarray(new))
    file.write_bytes(content)
    assert load_data(root, memory_gib=0, **SETTINGS).fingerprint != before.fingerprint


def test_a_pixel_of_a_set_that_gives_images_is_noticed_and_each_is_opened_once() -> None:
    opened: list[int] = []

    class Given:
        def __init__(self, changed: int) -> None:
            self.changed = changed

        def __getitem__(self, i: int) -> tuple[Image.Image, int]:
            opened.append(i)
            pixels = np.full((SIZE, SIZE, 3), i, dtype=np.uint8)
            pixels[3, 4, 1] += self.changed * (i == 5)
            return Image.fromarray(pixels), 0

    def digest(changed: int) -> bytes:
        names, labels = [str(i) for i in range(9)], np.zeros(9, dtype=np.int64)
        source = VisionSource(Given(changed), "data.train", "given", names, labels, ("a",), reopen=(Given, (changed,)))
        return decode([Part(source, np.arange(9))], Decoder(SIZE), 0, "cpu")[0][0].digest()

    assert digest(0) == digest(0) != digest(1)
    assert opened == 3 * list(range(9))


def test_a_changed_list_says_what_changed(tmp_path: Path) -> None:
    run, root = Run(tmp_path / "run"), images(tmp_path / "data")
    run.record_data(load_data(root, **SETTINGS).frame())
    (root / "class0/7.png").rename(root / "class0/new.png")
    with pytest.raises(SettingError, match=r"1 new, such as class0/new\.png; 1 missing, such as class0/7\.png"):
        run.record_data(load_data(root, **SETTINGS).frame())
    (root / "class0/new.png").rename(root / "class0/7.png")
    with pytest.raises(SettingError, match=r"\d+ with another label or split, such as class"):
        run.record_data(load_data(root, seed=1, **SETTINGS).frame())
    (root / "class0/7.png").write_bytes(b"broken since")
    with pytest.raises(SettingError, match=r"with another label or split, such as class0/7\.png"):
        run.record_data(load_data(root, unreadable="skip", **SETTINGS).frame())


def test_a_command_leaves_them_out_and_notices_a_change(damaged: Path, tmp_path: Path, nas_kd_main: Main) -> None:
    options = (
        "teacher",
        "--data.train",
        damaged,
        "--data.rate",
        "0.2",
        "--data.select",
        "0.2",
        "--data.views",
        "2",
        "--space",
        "resnet_cifar",
        "--teacher.model",
        "cifar_resnet8",
        "--teacher.epochs",
        "1",
        "--teacher.warmup_epochs",
        "0",
        "--teacher.batch_size",
        "4",
        "--supernet.batch_size",
        "4",
        "--blockwise.batch_size",
        "4",
        "--retrain.batch_size",
        "4",
        "--search.max_macs",
        "null",
        "--device",
        "cpu",
        "--threads",
        "1",
        "--run",
        tmp_path / "run",
    )
    said = nas_kd_main(*options)
    assert said.code == 2 and "class0/3.png" in said.err and "data.unreadable=skip" in said.err
    said = nas_kd_main(*options, "--data.unreadable", "skip")
    assert said.code == 0, said.err
    assert f"data: 3 unreadable images are left out, see data.csv: {', '.join(PNG)}" in said.err
    listed = pd.read_csv(tmp_path / "run/data.csv")
    assert list(listed[listed["split"] == "unreadable"]["name"]) == list(PNG)
    before = digests(tmp_path / "run")
    shutil.copy(damaged / "class0/1.png", damaged / PNG[0])  # mended meanwhile: these are other data
    said = nas_kd_main(*options, "--data.unreadable", "skip")
    assert said.code == 2 and f"such as {PNG[0]}" in said.err and "another --run" in said.err
    assert changes(before, digests(tmp_path / "run")) == []
