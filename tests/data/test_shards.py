"""Data in many tars: shards of class folders, a tar a class, WebDataset's samples; and memory that does not grow."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

import nas_kd
from nas_kd.data import Data, load_data
from nas_kd.data.samples import read_samples
from nas_kd.data.shards import named_shards
from nas_kd.errors import SettingError

Make = Callable[..., Path]
Members = Iterable[tuple[str, bytes]]


def write(path: Path, members: Members) -> Path:
    """Write a tar."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def files(folder: Path) -> list[tuple[str, bytes]]:
    """Return the images of class folders: their names and bytes."""
    return [(path.relative_to(folder).as_posix(), path.read_bytes()) for path in sorted(folder.rglob("*.png"))]


def samples(folder: Path) -> list[list[tuple[str, bytes]]]:
    """Return class folders as WebDataset's samples, classes as numbers."""
    classes = sorted(path.name for path in folder.iterdir())
    return [
        [
            (f"{name[:-4].replace('/', '-')}.png", content),
            (f"{name[:-4].replace('/', '-')}.cls", f"{classes.index(name.split('/')[0])}\n".encode()),
        ]
        for name, content in files(folder)
    ]


def shards(folder: Path, parts: list[Any], count: int, name: str = "shard-{:03d}.tar") -> Path:
    """Deal members, or lists of them, to so many tars."""
    for number in range(count):
        some = parts[number::count]
        write(folder / name.format(number), [m for one in some for m in (one if isinstance(one, list) else [one])])
    return folder


def images_of(data: Data) -> dict[str, tuple[bytes, int]]:
    """Return what each image of all splits shows, and its class."""
    return {
        name: (data_split.raw(torch.tensor([at])).numpy().tobytes(), int(data_split.labels[at]))
        for data_split in (data.train, data.rate, data.select, data.test)
        for at, name in enumerate(data_split.names)
    }


@pytest.mark.parametrize("inside", ["", "pets/"])
def test_shards_of_class_folders_are_the_folder(make_folder: Make, tmp_path: Path, inside: str) -> None:
    folder = make_folder()
    dealt = shards(tmp_path / "shards", [(inside + name, content) for name, content in files(folder)], 4)
    for memory in (4.0, 0.0):
        whole = load_data(folder, memory_gib=memory)
        data = load_data(dealt, memory_gib=memory)
        assert data.fingerprint == whole.fingerprint and data.classes == ("cat", "dog", "owl")
        assert images_of(data) == images_of(whole)


def test_a_tar_a_class_is_the_folder(make_folder: Make, tmp_path: Path) -> None:
    folder = make_folder(classes=("n01", "n02", "n10"))
    for path in folder.iterdir():
        write(tmp_path / "tars" / f"{path.name}.tar", [(name, content) for name, content in files(path)])
    assert load_data(tmp_path / "tars").fingerprint == load_data(folder).fingerprint


def test_names_of_tars_say_the_split(make_folder: Make, tmp_path: Path) -> None:
    train, test = make_folder("train"), make_folder("test", start=40)
    both = tmp_path / "both"
    shards(both, files(train), 3, "pets-train-{:02d}.tar")
    shards(both, files(test), 2, "pets-validation-{:02d}.tar")
    data = load_data(both)
    assert len(data.test) == 60 and data.fingerprint == load_data(train, test=test).fingerprint
    assert any("60 validation images" in note for note in data.found.notes)
    # a class's own tars, in folders of splits
    for split, folder in (("train", train), ("val", test)):
        for path in folder.iterdir():
            write(tmp_path / "parted" / split / f"{path.name}.tar", files(path))
    assert load_data(tmp_path / "parted").fingerprint == data.fingerprint


def test_samples_are_images_and_classes(make_folder: Make, tmp_path: Path) -> None:
    folder = make_folder()
    found = samples(folder)
    dealt = shards(tmp_path / "wds", found, 4)
    data = load_data(f"wds/{dealt}")
    assert data.classes == ("0", "1", "2") and any("image image; label cls" in note for note in data.found.notes)
    kept = images_of(data)
    assert len(kept) == 60
    whole = {name.replace("/", "-")[:-4]: value for name, value in images_of(load_data(folder)).items()}
    assert kept == whole
    # neither the number of shards nor the order in them matters
    again = shards(tmp_path / "again", found[::-1], 7)
    lazy = load_data(f"wds/{again}", memory_gib=0.0)
    assert images_of(lazy) == kept and lazy.test.names == data.test.names
    assert load_data(f"wds/{again}").fingerprint == data.fingerprint
    assert images_of(pickle.loads(pickle.dumps(lazy))) == kept  # another process reads them too


def test_what_is_said_of_a_sample_is_columns(make_folder: Make, tmp_path: Path) -> None:
    parts = []
    for (name, content), (_, label) in samples(make_folder()):
        number = int(label)
        said = {
            "kind": ("cat", "dog", "owl")[number],
            "age": number / 2,
            "patient": f"{name[:4]}{int(name[4:8]) % 6}",
            "box": [1, 2],
        }
        parts.append(
            [(name.replace(".png", ".JSON"), json.dumps(said).encode()), (name.replace("png", "PNG"), content)]
        )
    shards(tmp_path / "wds", parts, 2)
    where = f"wds/{tmp_path / 'wds'}"
    assert read_samples("data.train", str(tmp_path / "wds")).columns == ("image", "kind", "age", "patient")
    named = load_data(where, label="kind", group="patient")
    assert named.classes == ("cat", "dog", "owl")
    rated = load_data(where, label="age", kind="regression")
    assert rated.kind == "regression" and set(rated.train.labels.flatten().tolist()) == {0.0, 0.5, 1.0}
    with pytest.raises(SettingError, match=r"data\.label=None.*kind, age, patient"):
        load_data(where)
    assert read_samples("data.train", str(tmp_path / "wds"), ["kind"]).columns == ("image", "kind")
    with pytest.raises(SettingError, match=r"data\.label='kin'.*image, kind, age, patient"):
        load_data(where, label="kin")
    # a group is found by its name where labels are named, too
    grouped = [[(name, content.replace(b'"patient"', b'"Group"')) for name, content in part] for part in parts]
    shards(tmp_path / "grouped", grouped, 3)
    found = load_data(f"wds/{tmp_path / 'grouped'}", label="kind")
    assert any("group Group" in note for note in found.found.notes) and found.train.names == named.train.names


def test_what_has_a_name_of_its_own_stays_apart(make_folder: Make, tmp_path: Path) -> None:
    """JSON that calls something image, samples of two images, long texts, numbers too long for one."""
    parts = []
    for (name, content), (_, label) in samples(make_folder()):
        key = name[:-4]
        said = {"image": "a.png", "label": int(label), "caption": "a" * 300, "id": f"{'9' * 30}{name[4:8]}"}
        parts.append(
            [(f"{key}.png", content), (f"{key}.mask.png", content), (f"{key}.json", json.dumps(said).encode())]
        )
    shards(tmp_path / "wds", parts, 2)
    table = read_samples("data.train", str(tmp_path / "wds"))
    assert table.columns == ("image", "mask.png", "json.image", "label", "id") and table.images == ("image", "mask.png")
    assert load_data(f"wds/{tmp_path / 'wds'}", group="id").classes == ("0", "1", "2")
    for number, part in enumerate(parts[:30]):
        part[1] = (part[0][0].replace(".png", ".bmp"), part[0][1])
        part.append((f"{part[0][0][:-4]}.cls", str(number % 3).encode()))
    shards(tmp_path / "two", parts, 2)
    assert read_samples("data.train", str(tmp_path / "two")).images == ("png", "bmp", "mask.png")
    with pytest.raises(SettingError, match=r"data\.image=None.*png, bmp, mask\.png"):
        load_data(f"wds/{tmp_path / 'two'}")
    # formats that do not meet in one sample are one column
    mixed = [[(name.replace(".png", ".bmp") if at % 2 else name, c) for name, c in p[:1]] for at, p in enumerate(parts)]
    labels = [(f"{name.rpartition('.')[0]}.cls", name[:3].encode()) for ((name, _),) in mixed]
    shards(tmp_path / "mixed", [[*part, label] for part, label in zip(mixed, labels, strict=True)], 3)
    data = load_data(f"wds/{tmp_path / 'mixed'}")
    assert data.classes == ("cat", "dog", "owl") and len(images_of(data)) == 60


def test_the_order_is_one_for_names_that_differ_in_zeros_and_case(make_folder: Make, tmp_path: Path) -> None:
    found = [content for _, content in files(make_folder())]
    keys = [f"{letter}{zeros}{number}" for number in range(15) for letter in "aA" for zeros in ("", "0")]
    pairs = enumerate(zip(keys, found, strict=True))
    parts = [[(f"{key}.png", image), (f"{key}.cls", str(at % 2).encode())] for at, (key, image) in pairs]
    one = load_data(f"wds/{shards(tmp_path / 'one', parts, 2)}")
    other = load_data(f"wds/{shards(tmp_path / 'other', parts[::-1], 3)}")
    assert one.train.names == other.train.names and one.fingerprint == other.fingerprint


def test_test_images_below_the_training_images_are_left_out(
    make_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, test = make_folder("train"), make_folder("test", start=40)
    alone = load_data(train, test=test).fingerprint
    shards(tmp_path / "tars", files(train), 2)
    shards(tmp_path / "tars" / "held", files(test), 2, "more-{}.tar")
    monkeypatch.chdir(tmp_path)
    for given in ("tars/held", tmp_path / "tars" / "held"):
        assert load_data(tmp_path / "tars", test=given).fingerprint == alone
    shards(tmp_path / "wds", samples(train), 2)
    shards(tmp_path / "wds" / "held", samples(test), 1, "more-{}.tar")
    for given in ("wds/wds/held", "wds/wds/held/more-*.tar", "WDS/wds/held/more-0.tar"):
        data = load_data("wds/wds", test=given)
        assert (len(data.test), len(images_of(data))) == (60, 120)


def test_patterns_name_shards(make_folder: Make, tmp_path: Path) -> None:
    folder = shards(tmp_path / "wds", samples(make_folder("train")), 12, "train-{:03d}.tar")
    shards(folder, samples(make_folder("val", start=40)), 2, "val-{:03d}.tar")
    data = load_data(f"wds/{folder}/train-{{000..011}}.tar", test=f"wds/{folder}/val-*.tar")
    assert (len(data.test), len(data.train) + len(data.rate) + len(data.select)) == (60, 60)
    assert load_data(f"wds/{folder}").fingerprint == data.fingerprint  # by the names of all
    few = named_shards("data.train", f"{folder}/{{train,val}}-{{001..000}}.tar")[1]
    assert {path.name for path in few} == {"train-000.tar", "train-001.tar", "val-000.tar", "val-001.tar"}
    other = shards(tmp_path / "other[1]", samples(make_folder("more", start=80)), 1)  # a bracket stands for itself
    both = load_data(f"wds/{{{folder}/train-*,{other}/*}}.tar")
    assert len(images_of(both)) == 120


def test_what_cannot_be_is_refused(make_folder: Make, tmp_path: Path) -> None:
    folder = make_folder()
    found = samples(folder)

    def refused(text: str, given: str, **more: Any) -> None:
        with pytest.raises(SettingError, match=text):
            load_data(given, **more)

    place = tmp_path / "wds"
    shards(place, found, 2)
    refused(r"data\.train=.*WebDataset's.*; hint: data\.train=wds/", str(place))
    refused(r"data\.train=.*WebDataset's.*; hint: data\.train=wds/", str(place / "shard-000.tar"))
    write(tmp_path / "deep" / "a.tar", [(f"00/{n}", c) for part in found[:30] for n, c in part])
    write(tmp_path / "deep" / "b.tar", [(f"01/{n}", c) for part in found[30:] for n, c in part])
    refused(r"data\.train=.*WebDataset's.*; hint: data\.train=wds/", str(tmp_path / "deep"))
    write(place / "extra.tar", found[0])
    refused(r"those of cat-0000 are in extra\.tar and in shard-000\.tar", f"wds/{place}")
    write(place / "extra.tar", [("x.png", found[0][0][1]), ("y.png", found[0][0][1]), ("x.cls", b"1")])
    refused(r"those of x are apart in extra\.tar", f"wds/{place}")
    (place / "extra.tar").unlink()
    write(place / "extra.tar", [("last.png", found[0][0][1])])
    refused(r"no label in 1 rows", f"wds/{place}")
    write(place / "extra.tar", [("last.cls", b"1")])
    refused(r"the sample has no image of this name", f"wds/{place}")
    write(place / "extra.tar", [("../last.cls", b"1")])
    refused(r"names inside its own folder", f"wds/{place}")
    write(place / "extra.tar", [("last.json", b"{")])
    refused(r"extra\.tar: last\.json.*a JSON object", f"wds/{place}")
    (place / "extra.tar").write_bytes(os.urandom(2000))
    refused(r"extra\.tar'.*it cannot be read", f"wds/{place}")
    whole = (place / "shard-001.tar").read_bytes()
    for given in (str(tmp_path / "cut"), str(tmp_path / "cut" / "a.tar"), f"wds/{tmp_path / 'cut'}"):
        write(tmp_path / "cut" / "a.tar", files(folder))
        with tarfile.open(tmp_path / "cut" / "a.tar") as tar:
            start = tar.getmembers()[40].offset
        cut = (tmp_path / "cut" / "a.tar").read_bytes()[: start + 300]  # within a header
        (tmp_path / "cut" / "a.tar").write_bytes(cut)
        refused(r"a\.tar'.*it is cut off or damaged at byte", given)
    write(place / "extra.tar", [("bad.png", b"no image"), ("bad.cls", b"1")])
    refused(r"extra\.tar: bad", f"wds/{place}")
    (place / "shard-000.tar").rename(place / "shard-000.tar.gz")
    refused(r"none is there; hint: unpack those that are compressed", f"wds/{place}/shard-000*.tar")
    (place / "shard-001.tar").write_bytes(whole)
    refused(r"none is there", f"wds/{place}/none-*.tar")
    refused(r"2 of 3 do not exist, such as .*shard-002\.tar", f"wds/{place}/shard-{{001..003}}.tar")
    refused(r"none is there", "wds/")
    refused(r"does not exist", "wds/~nobody_at_all/x")
    refused(r"2 of 2 do not exist", f"wds/{'x' * 5000}{{0..1}}")
    refused(r"this does not exist", f"wds/{tmp_path / 'nowhere'}")
    write(tmp_path / "words" / "a.tar", [("a.cls", b"1"), ("b.cls", b"0")])
    refused(r"samples with an image; 2 samples have none", f"wds/{tmp_path / 'words'}")
    write(tmp_path / "mixed" / "a.tar", files(folder))
    write(tmp_path / "mixed" / "b.tar", files(folder / "cat"))
    refused(r"b\.tar has no folders, a\.tar has some", str(tmp_path / "mixed"))
    for name in ("train_cat", "train_dog", "val_cat", "val_dog"):
        write(tmp_path / "named" / f"{name}.tar", files(folder / name[-3:]))
    refused(r"train_cat\.tar names a split itself", str(tmp_path / "named"))
    write(tmp_path / "none" / "a.tar", [("a.txt", b"")])
    refused(r"images in 1 tars; they hold none", str(tmp_path / "none"))
    write(tmp_path / "twice" / "a.tar", files(folder))
    write(tmp_path / "twice" / "b.tar", files(folder)[:1])
    refused(r"shards of one data set; cat/0000\.png is in a\.tar and in b\.tar", str(tmp_path / "twice"))


TRAINING = """
import sys, torch, nas_kd
data = nas_kd.load_data(sys.argv[1], memory_gib=float(sys.argv[2]), views=1, rate=500, select=500)
if sys.argv[3] == "train":
    torch.manual_seed(0)
    teacher = nas_kd.load_teacher(nas_kd.teacher.cifar_resnet8(num_classes=10)).bind(data)
    student = nas_kd.teacher.cifar_resnet8(num_classes=10)
    nas_kd.retrain(student, teacher, data, run=sys.argv[4], method="kd", epochs=1, batch_size=128, test=False,
        factory=("nas_kd.teacher:cifar_resnet8", {"num_classes": 10}))
else:
    for batch in data.train.batches(128, epoch=0, seed=0):
        pass
with open("/proc/self/status") as file:  # getrusage would count what the process that started this one had
    print(next(int(line.split()[1]) // 1024 for line in file if line.startswith("VmHWM")))
"""


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells how much memory a process has had")
def test_memory_does_not_grow_with_the_data(cifar10: Path, tmp_path: Path) -> None:
    """Of 50,000 images in 20 shards none is kept, be they read or trained on with stored answers."""
    with tarfile.open(cifar10 / "train.tar") as tar:
        members = [(one.name, tar.extractfile(one)) for one in tar if one.isfile()]
        found = [
            [(f"{number:05d}.jpg", member.read()), (f"{number:05d}.cls", name.split("/")[0].encode())]
            for number, (name, member) in enumerate(members)
            if member is not None
        ]
    places = {5_000: shards(tmp_path / "few", found[::10], 2), 50_000: shards(tmp_path / "all", found, 20)}
    peaks: dict[tuple[str, int, float], int] = {}  # MiB
    for what, count, memory in (
        *(("read", 5_000, 0.0), ("read", 50_000, 0.0), ("read", 50_000, 4.0)),
        *(("train", 5_000, 0.0), ("train", 50_000, 0.0)),
    ):
        given = [f"wds/{places[count]}", str(memory), what, str(tmp_path / f"run_{count}")]
        env = os.environ | {"PYTHONPATH": str(Path(nas_kd.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
        done = subprocess.run([sys.executable, "-c", TRAINING, *given], capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stderr
        peaks[what, count, memory] = int(done.stdout.split()[-1])
    print(peaks)
    decoded = 50_000 * 3 * 32 * 32 / 2**20
    assert len(found) == 50_000
    assert peaks["read", 50_000, 0.0] - peaks["read", 5_000, 0.0] < 0.5 * decoded, peaks
    assert peaks["read", 50_000, 4.0] - peaks["read", 50_000, 0.0] > 0.5 * decoded, peaks
    assert peaks["train", 50_000, 0.0] < 1.3 * peaks["train", 5_000, 0.0], peaks
