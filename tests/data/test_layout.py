"""Folders and tars as people have them: what is a class, what is a split, and what is left out, said at the start."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas_kd.data import Data, load_data
from nas_kd.data.summary import summary
from nas_kd.errors import SettingError
from nas_kd.runs.run import Run

Tree = dict[str, int]
Pack = Callable[[Path], Path]


def tree(root: Path, folders: Tree, suffix: str = ".png") -> Path:
    """Write so many images into each folder, no two of them equal."""
    for at, (folder, count) in enumerate(folders.items()):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = np.random.default_rng([at, number]).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{number}{suffix}")
    return root


def packed(root: Path) -> Path:
    """Write a folder's files to a tar beside it."""
    with tarfile.open(root.with_suffix(".tar"), "w") as tar:
        for file in sorted(path for path in root.rglob("*") if path.is_file()):
            tar.add(file, arcname=file.relative_to(root).as_posix())
    return root.with_suffix(".tar")


def counts(data: Data) -> dict[str, int]:
    """Return images of each class."""
    found = data.frame()["label"].value_counts()
    return {name: int(found.get(number, 0)) for number, name in enumerate(data.classes)}


packings = pytest.mark.parametrize("pack", [lambda root: root, packed], ids=["folder", "tar"])


@packings
def test_a_class_is_a_folder_right_under_the_root(tmp_path: Path, pack: Pack) -> None:
    patients = {
        f"{kind}/p{n}": 8 for kind, numbers in (("benign", (1, 2, 3)), ("malignant", (4, 5, 6))) for n in numbers
    }
    root = pack(tree(tmp_path / "patients", patients))
    data = load_data(root)
    assert counts(data) == {"benign": 24, "malignant": 24}
    assert any("right under" in note and "data.class_folder" in note for note in data.found.notes)
    assert load_data(root, class_folder="leaf").classes == ("p1", "p2", "p3", "p4", "p5", "p6")
    same = {f"{kind}/{zoom}": 10 for kind in ("benign", "malignant") for zoom in ("40X", "100X")}
    root = pack(tree(tmp_path / "zooms", same))
    assert counts(load_data(root)) == {"benign": 20, "malignant": 20}
    assert counts(load_data(root, class_folder="leaf")) == {"40X": 20, "100X": 20}  # 40 comes before 100


@packings
def test_images_of_one_deeper_folder_stay_in_one_split_on_request(tmp_path: Path, pack: Pack) -> None:
    patients = {f"{kind}/p{n}": 4 + n % 3 for kind in ("benign", "malignant") for n in range(12)}
    root = pack(tree(tmp_path / "patients", patients))
    data = load_data(root, group="folder", rate=0.15, select=0.15)
    homes: dict[str, set[str]] = {}
    for split in data.splits:
        assert set(split.labels.tolist()) == {0, 1}
        for name in split.names:
            homes.setdefault(name.rpartition("/")[0], set()).add(split.name)
    assert len(homes) == 24 and all(len(splits) == 1 for splits in homes.values())
    loose = load_data(root, rate=0.15, select=0.15)
    assert sum(len({n.rpartition("/")[0] for n in split.names}) for split in loose.splits) > 40
    few = tree(tmp_path / "few", {"a/p1": 9, "a/p2": 9, "b/p3": 9, "b/p4": 9})
    with pytest.raises(SettingError, match="at least 4 groups in every class.*class 'a' has 2: add groups"):
        load_data(few, group="folder")


@packings
@pytest.mark.parametrize(
    ("name", "test"), [("train", "test"), ("training", "Testing"), ("Train", "TEST"), ("TRAINING", "testing")]
)
def test_training_and_test_folders_in_any_case(tmp_path: Path, pack: Pack, name: str, test: str) -> None:
    folders = {f"{name}/cat": 20, f"{name}/dog": 20, f"{test}/cat": 5, f"{test}/dog": 5}
    root = pack(tree(tmp_path / "set", folders))
    data = load_data(root)
    assert data.classes == ("cat", "dog") and len(data.test) == 10
    assert sum(len(split) for split in data.splits[:3]) == 40
    assert any("test images are the 10" in note for note in data.found.notes)
    given = load_data(root, test=root)
    assert given.test.names == data.test.names and given.fingerprint == data.fingerprint


def test_test_images_below_the_training_folder_are_not_trained_on(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", {"Training/cat": 20, "Training/dog": 20, "Testing/cat": 5, "Testing/dog": 5})
    data = load_data(root, test=root / "Testing")
    assert data.fingerprint == load_data(root).fingerprint
    odd = tree(tmp_path / "odd", {"cat": 20, "dog": 20, "held out/cat": 5, "held out/dog": 5})
    data = load_data(odd, test=odd / "held out")
    assert counts(data) == {"cat": 25, "dog": 25} and len(data.test) == 10
    assert not {name for split in data.splits[:3] for name in split.names if "held" in name}


@packings
@pytest.mark.parametrize("val", ["val", "Valid", "VALIDATION"])
def test_validation_images_are_test_images_or_select(tmp_path: Path, pack: Pack, val: str) -> None:
    two = {"train/cat": 20, "train/dog": 20, f"{val}/cat": 5, f"{val}/dog": 6}
    data = load_data(pack(tree(tmp_path / "two", two)))
    assert len(data.test) == 11 and any("11 validation images" in note for note in data.found.notes)
    three = pack(tree(tmp_path / "three", {**two, "test/cat": 7, "test/dog": 8}))
    data = load_data(three)
    assert (len(data.test), len(data.select)) == (15, 11) and len(data.train) + len(data.rate) == 40
    assert any("select is the 11 validation images" in note for note in data.found.notes)
    other = pack(tree(tmp_path / "other", {"dog": 3, "cat": 4}))
    data = load_data(tmp_path / "two", test=other, duplicates="keep")
    assert (len(data.test), len(data.select)) == (7, 11)
    data = load_data(tmp_path / "two", test=tmp_path / "two" / val)  # the same folder is not select as well
    assert len(data.test) == 11 and sum(map(len, data.splits[:3])) == 40


def test_a_folder_called_train_among_classes_is_a_class(tmp_path: Path) -> None:
    assert load_data(tree(tmp_path / "vehicles", {"bus": 9, "train": 9, "test": 9})).classes == ("bus", "test", "train")
    deep = tree(tmp_path / "deep", {"bus/red": 9, "train/steam": 9})
    assert load_data(deep).classes == ("bus", "train")


@pytest.mark.parametrize(
    ("folders", "parts"),
    [
        ({"train/cat": 9, "train/dog": 9, "extra/cat": 9, "extra/dog": 9}, "train and extra could be either"),
        ({"cat": 9, "dog": 9, "val/cat": 9, "val/dog": 9}, "val and cat could be either"),
        ({"train/cat": 9, "train/dog": 9, "Training/cat": 9, "Training/dog": 9}, "Training and train both say train"),
        ({"val/cat": 9, "val/dog": 9, "test/cat": 9, "test/dog": 9}, "training images beside test and val"),
        ({"images/cat": 9, "images/dog": 9}, "one class, 'images'; if its folders cat, dog are the classes, give that"),
        ({"cat": 9}, "one class, 'cat'"),
        ({"train/cat": 9, "train/dog": 9, "unlabelled": 9}, "train and unlabelled could be either"),
        ({"train/cat": 9, "train/dog": 9, "train/emu": 0, "test/cat": 3, "test/dog": 3}, "class 'emu' has 0 images"),
    ],
)
def test_what_could_be_two_things_is_refused(tmp_path: Path, folders: Tree, parts: str) -> None:
    with pytest.raises(SettingError, match=parts):
        load_data(tree(tmp_path / "set", folders))


def test_unlabelled_test_images_are_left_out(tmp_path: Path) -> None:
    data = load_data(tree(tmp_path / "set", {"train/cat": 12, "train/dog": 12, "test": 9}))
    assert counts(data) == {"cat": 12, "dog": 12}
    assert dict(data.found.ignored) == {"in test/, which is no split of class folders": 9}


@packings
def test_splits_within_classes(tmp_path: Path, pack: Pack) -> None:
    folders = {"cat/train": 12, "cat/test": 3, "dog/Train": 12, "dog/TEST": 4}
    data = load_data(pack(tree(tmp_path / "set", folders)))
    assert data.classes == ("cat", "dog") and len(data.test) == 7 and sum(map(len, data.splits[:3])) == 24
    mixed = tree(tmp_path / "mixed", {"cat/train": 12, "cat/happy": 3, "dog/train": 12})  # not all are splits
    assert counts(load_data(mixed)) == {"cat": 15, "dog": 12}


def test_folders_beside_splits_are_counted(tmp_path: Path) -> None:
    data = load_data(tree(tmp_path / "set", {"train/a": 9, "train/b": 9, "test/a": 3, "test/b": 3, "masks/a": 4}))
    assert dict(data.found.ignored) == {"in masks/, which is no split of class folders": 4} and counts(data) == {
        "a": 12,
        "b": 12,
    }


@packings
def test_hidden_and_other_files_are_left_out_and_counted(tmp_path: Path, pack: Pack) -> None:
    root = tree(tmp_path / "set", {"cat": 9, "dog": 9})
    for name in (".git/0.png", ".thumbnails/cat/0.png", "cat/._0.png", "__MACOSX/cat/0.png", "dog/.hidden/0.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes((root / "cat/0.png").read_bytes())
    for name in ("cat/Thumbs.db", "dog/notes.txt", "dog/more.TXT", "cat/README"):
        (root / name).write_text("no image")
    data = load_data(pack(root))
    assert counts(data) == {"cat": 9, "dog": 9}
    assert dict(data.found.ignored) == {
        "hidden": 5,
        "no image by its name (.db)": 1,
        "no image by its name (.txt)": 2,
        "no image by its name (no suffix)": 1,
    }
    (line,) = [line for line in summary(data, "set") if "ignored" in line]
    assert line.startswith("data: files ignored: ") and "5 hidden" in line and "2 no image by its name (.txt)" in line


@packings
def test_suffixes_in_any_case_and_of_many_formats(tmp_path: Path, pack: Pack) -> None:
    root = tree(tmp_path / "set", {"cat": 10, "dog": 10})
    for at, suffix in enumerate((".webp", ".BMP", ".tif", ".TIFF", ".gif", ".JPG", ".jpeg", ".ppm")):
        for label in ("cat", "dog"):
            pixels = np.random.default_rng([9, at, ord(label[0])]).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / label / f"other{suffix}")
    data = load_data(pack(root))
    assert counts(data) == {"cat": 18, "dog": 18} and data.found.ignored == ()


@pytest.mark.skipif(os.fsencode("ü") != b"\xc3\xbc", reason="file names are not UTF-8 here")
def test_names_that_are_no_text_are_written_as_their_codes(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", {"cat": 9, "dog": 9})
    os.rename(os.fsencode(root / "cat/3.png"), os.fsencode(root / "cat") + b"/\xff3.png")
    os.rename(root / "cat/4.png", root / "cat/a\rb\n.png")
    frame = load_data(root).frame()
    assert {"cat/\\xff3.png", "cat/a\\rb\\n.png"} < set(frame["name"])
    assert len(frame.to_csv().splitlines()) == 19


def test_the_last_of_two_members_of_one_name_counts(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", {"cat": 9, "dog": 9})
    path = packed(root)
    with tarfile.open(path, "a") as tar:
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), (1, 2, 3)).save(buffer, "PNG")
        info = tarfile.TarInfo("cat/3.png")
        info.size = len(buffer.getvalue())
        tar.addfile(info, io.BytesIO(buffer.getvalue()))
    data = load_data(path)
    Image.new("RGB", (8, 8), (1, 2, 3)).save(root / "cat/3.png")
    assert data.fingerprint == load_data(root).fingerprint


def test_one_tar_a_class_in_a_tar(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", {"cat": 9, "dog": 9})
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        for name in ("cat", "dog"):
            tar.add(packed(root / name), arcname=f"{name}.tar")
    data = load_data(tmp_path / "all.tar")
    for name in ("cat", "dog"):
        (root / f"{name}.tar").unlink()
    assert data.classes == ("cat", "dog") and data.fingerprint == load_data(root).fingerprint


def test_the_first_lines_say_what_the_data_are(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", {f"c{n:02d}": 6 for n in range(12)})
    first, second, third, *rest = summary(load_data(root), "set")
    assert first.startswith("data: set, 12 classes, 3 x 8 x 8; images: train ")
    assert second.startswith("data: images a class (train/rate/select/test): c00 ") and "c09 " in second
    assert second.endswith(" ... (12 in all)") and "c10" not in second
    assert third == "data: images found: 72 RGB; pixels 8 x 8 (72)" and rest == []


def test_run_folders_within_the_data_are_left_out(tmp_path: Path) -> None:
    root = tree(tmp_path / "images", {"cat": 8, "dog": 8})
    before = load_data(root)
    for name in ("runs/mine", "runs/other"):
        run = Run(root / name)
        tree(run.path / "report", {"figures": 3})
    data = load_data(root)
    assert data.fingerprint == before.fingerprint and data.classes == ("cat", "dog")
    assert ("run folder of nas_kd", 2) in data.found.ignored
    (root / "owl").mkdir()
    (root / "owl" / "env.json").write_text("[1]")  # of somebody else
    tree(root, {"owl": 8})
    assert load_data(root, duplicates="keep").classes == ("cat", "dog", "owl")
