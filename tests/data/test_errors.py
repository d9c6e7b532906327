"""Every mistake names the setting, the value and the mend, before any work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from nas_kd.data import load_data
from nas_kd.errors import SettingError

Make = Callable[..., Path]


def refused(*parts: str, **settings: Any) -> None:
    train = settings.pop("train", "digits")
    with pytest.raises(SettingError) as caught:
        load_data(train, **settings)
    message = str(caught.value)
    assert all(part in message for part in parts), message
    assert "expected" in message and "hint:" in message


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"rate": -0.1}, ["data.rate=-0.1", "at least 0 and below 1", "at least 2"]),
        ({"rate": 1.0}, ["data.rate=1.0"]),
        ({"select": float("nan")}, ["data.select=nan"]),
        ({"select": -3}, ["data.select=-3"]),
        ({"rate": 0.5, "select": 0.5}, ["data.rate=0.5", "below 1 - data.select=0.5"]),
        ({"rate": 5}, ["data.rate=5", "10 (one per class)"]),
        ({"rate": 700, "select": 745}, ["data.rate + data.select"]),
        ({"resolution": 0}, ["data.resolution=0", "at least 1"]),
        ({"views": -1}, ["data.views=-1", "an integer of at least 0", "all"]),
        ({"views": "al"}, ["data.views='al'", "did you mean 'all'"]),
        ({"views": True}, ["data.views=True"]),
        ({"views": 10}, ["data.views=10", "1 .. 9"]),
        ({"pad": -1}, ["data.pad=-1"]),
        ({"pad": 9}, ["data.pad=9", "0 .. 8"]),
        ({"subset": 29}, ["data.subset=29", "30 (3 per class)"]),
        ({"subset": 5000}, ["data.subset=5000"]),
        ({"memory_gib": -1}, ["data.memory_gib=-1"]),
        ({"train": "no/such/folder"}, ["data.train='no/such/folder'", "does not exist", "working folder"]),
        ({"test": "no/such.tar"}, ["data.test='no/such.tar'"]),
        ({"train": "torch/nonsense"}, ["data.train='torch/nonsense'"]),
        ({"train": "wds/some"}, ["data.train='wds/some'", "WebDataset's samples", "does not exist"]),
        ({"train": (torch.zeros(4, 3, 2, 2), torch.zeros(4).long())}, ["data.train", "float32", "uint8"]),
        ({"train": (torch.zeros(4, 0, 2, 2).byte(), torch.zeros(4).long())}, ["data.train", "at least one channel"]),
        ({"train": (torch.zeros(9, 1, 2, 2).byte(), torch.arange(9) % 2 * 2)}, ["data.train", "class 1"]),
        ({"train": (torch.zeros(9, 1, 2, 3).byte(), torch.arange(9) % 2)}, ["data.resolution", "2 x 3"]),
        ({"train": (torch.zeros(9, 1, 2, 2).byte(), torch.zeros(9).long())}, ["data.train", "one class, '0'"]),
    ],
)
def test_settings(settings: dict[str, Any], parts: list[str]) -> None:
    refused(*parts, **settings)


def test_torchvision_set_that_is_not_there(tmp_path: Path) -> None:
    refused("data.train='torch/cifar10'", "data.download", train="torch/cifar10", root=tmp_path)


def test_folders(make_folder: Make, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    refused("data.train", "no sub-folder", train=empty)
    Image.new("RGB", (4, 4)).save(empty / "a.png")
    refused("data.train", "no sub-folder", train=empty)
    root = make_folder()
    (root / "yak").mkdir()
    refused("data.train", "'yak'", "0 images", train=root)
    Image.new("RGB", (12, 12)).save(root / "yak" / "a.png")
    refused("data.train", "'yak' has 1", "at least 4 images", "train, rate, select, test", train=root)
    refused("'yak' has 1", "at least 2 images", train=root, test=root, rate=0)
    refused("one class, 'cat'", train=make_folder("single", classes=("cat",)))
    Image.new("RGB", (12, 12)).save(root / "a.png")
    refused("images outside class folders", train=root)


def test_archives(tmp_path: Path) -> None:
    broken = tmp_path / "broken.tar"
    broken.write_bytes(b"this is no archive" * 100)
    refused("data.train", "broken.tar", "cannot be read", train=broken)
    zipped = tmp_path / "pets.tar.gz"
    zipped.write_bytes(b"x")
    refused("data.train", "uncompressed .tar", train=zipped)
    import tarfile

    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    refused("data.train", "no image", train=tmp_path / "empty.tar")


@pytest.mark.parametrize("memory_gib", [4, 0])
@pytest.mark.parametrize("content", [b"not an image", None])
def test_unreadable_image(make_folder: Make, memory_gib: float, content: bytes | None) -> None:
    root = make_folder(size=(40, 40))
    name = root / "dog" / "0007.png"
    name.write_bytes(content if content is not None else name.read_bytes()[:1000])
    refused(
        "data.train",
        "dog/0007.png",
        "readable",
        "replace or delete",
        train=root,
        memory_gib=memory_gib,
        rate=0,
        select=0,
    )


@pytest.mark.parametrize("memory_gib", [4, 0])
def test_sizes_and_modes(make_folder: Make, memory_gib: float) -> None:
    refused("data.resolution", "12 x 15", train=make_folder("wide", size=(15, 12)), memory_gib=memory_gib)
    root = make_folder()
    Image.new("RGB", (13, 13)).save(root / "owl" / "0001.png")
    refused("data.resolution", "owl/0001.png", "13 x 13", "12 x 12", train=root, memory_gib=memory_gib, rate=0)
    (root / "owl" / "0001.png").unlink()
    Image.new("F", (12, 12)).save(root / "owl" / "0001.tif")
    refused("data.train", "owl/0001.tif", "8 or 16 bits", "mode F", train=root, memory_gib=memory_gib, rate=0)
    grey = make_folder("grey", mode="L")
    refused("data.test", "greyscale images", train=grey, test=make_folder("colour"), memory_gib=memory_gib)


def test_test_set_of_other_classes(make_folder: Make) -> None:
    root = make_folder()
    other = make_folder("other", classes=("cat", "dog", "yak"))
    refused("data.test", "without 'owl'", "unknown 'yak'", train=root, test=other)


def test_batch_size_and_limit() -> None:
    data = load_data("digits")
    with pytest.raises(SettingError, match="batch_size=0"):
        next(data.train.batches(0, epoch=0, seed=0))
    with pytest.raises(SettingError, match="limit=0"):
        next(data.train.clean(8, limit=0))
    with pytest.raises(SettingError, match=r"view.*0 \.\. 8.*0 \.\. 7"):
        data.train.shown(torch.arange(3), torch.tensor([0, 7, 8]))
    with pytest.raises(SettingError, match="no views"):
        data.test.shown(torch.arange(3), torch.zeros(3).long())
