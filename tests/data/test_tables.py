"""CSV, parquet and Hugging Face's data sets: columns found or named, splits, groups and several labels."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from nas_kd.data import Data, load_data
from nas_kd.data import table as tables
from nas_kd.errors import SettingError

N = 48
SPLIT = {"rate": 0.15, "select": 0.15}
CLASSES = ("cat", "dog", "emu", "fox")


def image(number: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8))


@pytest.fixture
def frame(tmp_path: Path) -> pd.DataFrame:
    """48 images of four classes in one folder, and the table of them."""
    (tmp_path / "images").mkdir()
    for number in range(N):
        image(number).save(tmp_path / f"images/{number:02d}.png")
    paths = [f"images/{number:02d}.png" for number in range(N)]
    return pd.DataFrame({"image": paths, "label": [CLASSES[number % 4] for number in range(N)]})


def written(frame: pd.DataFrame, path: Path, **settings: Any) -> Path:
    frame.to_csv(path, index=False, **settings)
    return path


def labels(data: Data) -> dict[str, Any]:
    return {n: y for split in data.splits for n, y in zip(split.names, split.labels.tolist(), strict=True)}


def splits(data: Data) -> dict[str, str]:
    return {name: split.name for split in data.splits for name in split.names}


def test_paths_and_texts(frame: pd.DataFrame, tmp_path: Path) -> None:
    data = load_data(written(frame, tmp_path / "a.csv"), **SPLIT)
    assert (data.kind, data.classes, data.in_chans, data.resolution) == ("classes", CLASSES, 3, 8)
    assert labels(data) == {path: CLASSES.index(label) for path, label in frame.itertuples(index=False)}
    # paths begin at the table, wherever the command is called; dividers and endings are found
    for name, divider in (("b.csv", ";"), ("c.tsv", "\t"), ("d.CSV", ",")):
        assert load_data(written(frame, tmp_path / name, sep=divider), **SPLIT).fingerprint == data.fingerprint
    (tmp_path / "marked.csv").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "a.csv").read_bytes())
    assert load_data(tmp_path / "marked.csv", **SPLIT).fingerprint == data.fingerprint
    lazy = load_data(tmp_path / "a.csv", memory_gib=0, **SPLIT)
    assert torch.equal(next(lazy.test.clean(99)).x, next(data.test.clean(99)).x)
    assert torch.equal(next(pickle.loads(pickle.dumps(lazy)).test.clean(99)).x, next(data.test.clean(99)).x)


def test_columns_of_other_names(frame: pd.DataFrame, tmp_path: Path) -> None:
    base = load_data(written(frame, tmp_path / "a.csv"), **SPLIT)
    known = frame.rename(columns={"image": "File_Name", "label": "Class"})
    assert load_data(written(known, tmp_path / "b.csv"), **SPLIT).fingerprint == base.fingerprint
    odd = frame.rename(columns={"image": "scan", "label": "finding"})  # found by what is in it, and as the only other
    assert load_data(written(odd, tmp_path / "c.csv"), **SPLIT).fingerprint == base.fingerprint
    more = odd.assign(age=31)
    with pytest.raises(
        SettingError, match=r"data\.label=None.*c\.csv|d\.csv has scan, finding, age.*data\.label=COLUMN"
    ):
        load_data(written(more, tmp_path / "d.csv"), **SPLIT)
    named = load_data(tmp_path / "d.csv", image="scan", label="finding", **SPLIT)
    assert named.fingerprint == base.fingerprint
    assert named.found.notes == ("columns: image scan; label finding; not used: age",)
    with pytest.raises(SettingError, match=r"data\.label='findin'.*a column of .*scan, finding, age"):
        load_data(tmp_path / "d.csv", label="findin")
    two = more.assign(mask=frame["image"])
    with pytest.raises(SettingError, match=r"data\.image=None.*data\.image=COLUMN"):
        load_data(written(two, tmp_path / "e.csv"), label="finding")


def test_whole_numbers_are_classes_in_their_order(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame["label"] = [(2, 10, 3)[number % 3] for number in range(N)]
    data = load_data(written(frame, tmp_path / "a.csv"), **SPLIT)
    assert data.classes == ("2", "3", "10") and labels(data)["images/01.png"] == 2


def test_several_label_columns(frame: pd.DataFrame, tmp_path: Path) -> None:
    hot = np.random.default_rng(0).integers(0, 2, (N, 3))
    table = frame.assign(red=hot[:, 0], round=hot[:, 1].astype(bool), old=hot[:, 2])
    data = load_data(written(table, tmp_path / "a.csv"), label=["red", "round", "old"], **SPLIT)
    assert (data.kind, data.label_names) == ("multilabel", ("red", "round", "old"))
    assert labels(data) == {path: row for path, row in zip(frame["image"], hot.astype(float).tolist(), strict=True)}
    numbers = np.random.default_rng(1).normal(size=(N, 2)).round(3)
    table = frame.assign(age=numbers[:, 0], weight=numbers[:, 1])
    data = load_data(written(table, tmp_path / "b.csv"), label=["age", "weight"], **SPLIT)
    assert (data.kind, data.label_names) == ("regression", ("age", "weight"))
    assert torch.equal(data.test.labels, torch.tensor(numbers[[int(n[7:9]) for n in data.test.names]]).float())
    data = load_data(tmp_path / "b.csv", label="age", **SPLIT)
    assert (data.kind, data.train.labels.shape[1]) == ("regression", 1)
    years = frame.assign(label=[20 + number % 7 for number in range(N)])
    path = written(years, tmp_path / "c.csv")
    assert load_data(path, rate=0, select=0).num_classes == 7
    assert load_data(path, kind="regression").label_names == ("label",)


def test_a_column_of_splits(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame["split"] = ["Train"] * 32 + ["VALIDATION"] * 8 + ["test"] * 8
    data = load_data(written(frame, tmp_path / "a.csv"))
    found = splits(data)
    assert {name for name, split in found.items() if split == "test"} == set(frame["image"][40:])
    assert {name for name, split in found.items() if split == "select"} == set(frame["image"][32:40])
    assert {split for name, split in found.items() if name in set(frame["image"][:32])} == {"train", "rate"}
    two = frame.assign(split=["train"] * 40 + ["val"] * 8)
    assert set(load_data(written(two, tmp_path / "b.csv")).test.names) == set(frame["image"][40:])
    other = two.rename(columns={"split": "fold"})
    path = written(other, tmp_path / "c.csv")
    assert load_data(path, label="label", split_column="fold").fingerprint == load_data(tmp_path / "b.csv").fingerprint
    with pytest.raises(SettingError, match=r"train, val or test in column 'split'; it has '1', '2'"):
        load_data(written(frame.assign(split=[1, 2] * 24), tmp_path / "d.csv"))
    with pytest.raises(SettingError, match="images of split train"):
        load_data(written(frame.assign(split="test"), tmp_path / "e.csv"))


def test_a_group_in_two_splits_is_refused_and_named(frame: pd.DataFrame, tmp_path: Path) -> None:
    parted = frame.assign(split=["train"] * 40 + ["test"] * 8, patient=[f"p{number // 6}" for number in range(N)])
    path = written(parted, tmp_path / "a.csv")
    told = r"1 groups have images in several splits, such as 'p6' in train and test.*data.duplicates=keep"
    with pytest.raises(SettingError, match=told):
        load_data(path, label="label", group="patient")
    kept = load_data(path, label="label", group="patient", duplicates="keep")
    assert any("such as 'p6' in train and test" in note for note in kept.found.notes)
    whole = parted.assign(patient=[f"p{number // 8}" for number in range(N)])
    assert len(load_data(written(whole, tmp_path / "b.csv"), label="label", group="patient").test) == 8
    # two tables; images without a group are nobody's
    train, test = parted[:40].assign(patient=None), parted[40:].assign(patient=None)
    one, other = (written(part.drop(columns="split"), tmp_path / f"{n}.csv") for n, part in enumerate((train, test)))
    assert len(load_data(one, test=other, label="label", group="patient").test) == 8
    for part in (train, test):
        part.loc[part.index[0], "patient"] = "p1"
    one, other = (written(part.drop(columns="split"), tmp_path / f"{n}.csv") for n, part in enumerate((train, test)))
    with pytest.raises(SettingError, match="such as 'p1' in train and test"):
        load_data(one, test=other, label="label", group="patient")


@pytest.mark.parametrize("amounts", [{"rate": 0.15, "select": 0.15}, {"rate": 8, "select": 8}])
def test_images_of_a_group_stay_in_one_split(frame: pd.DataFrame, tmp_path: Path, amounts: dict[str, Any]) -> None:
    patients = [f"p{number % 4}{number // 8}" for number in range(N)]  # each has two images of one class
    data = load_data(written(frame.assign(group=patients), tmp_path / "a.csv"), **amounts)
    homes: dict[str, set[str]] = {}
    for name, split in splits(data).items():
        homes.setdefault(patients[int(name[7:9])], set()).add(split)
    assert len(homes) == 24 and all(len(found) == 1 for found in homes.values())
    for split in data.splits:
        assert set(split.labels.tolist()) == {0, 1, 2, 3}
    named = written(frame.assign(patient=patients), tmp_path / "b.csv")
    assert load_data(named, label="label", group="patient", **amounts).fingerprint == data.fingerprint
    assert load_data(named, label="label", **amounts).fingerprint != data.fingerprint
    # a patient with images of several classes too
    mixed = written(frame.assign(group=[f"p{number // 3}" for number in range(N)]), tmp_path / "c.csv")
    found = splits(load_data(mixed, **SPLIT))
    assert all(len({found[f"images/{3 * p + i:02d}.png"] for i in range(3)}) == 1 for p in range(16))


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"image": ["images/00.png"] * N}, "a row an image; images/00.png is in 48 rows"),
        ({"image": [f"{n:02d}" for n in range(N)]}, "48 of 48 are missing, such as 00.*with their suffix"),
        ({"label": ["cat", None] * 24}, "no label in 24 rows, the first 1"),
        ({"label": ["cat"] * N}, "one class, 'cat'"),
        ({"image": [None, *[f"images/{n:02d}.png" for n in range(1, N)]]}, "paths in column 'image'; row 0"),
    ],
)
def test_tables_that_cannot_be(frame: pd.DataFrame, tmp_path: Path, change: dict[str, Any], parts: str) -> None:
    with pytest.raises(SettingError, match=parts):
        load_data(written(frame.assign(**change), tmp_path / "a.csv"))


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    cases = {"a.csv": b"", "b.csv": b"image,label\n", "c.csv": b"\xff\xfei\0m\0", "d.csv": b'a,b\n"'}
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SettingError, match=f"data.train=.*{name}.*table"):
            load_data(tmp_path / name)
    with open(tmp_path / "sparse.csv", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(SettingError, match="at most 1,073,741,824 bytes; it has 1,099,511,627,776.*divide it"):
        load_data(tmp_path / "sparse.csv")


def test_missing_files_are_unreadable_images(frame: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "images/07.png").unlink()
    path = written(frame, tmp_path / "a.csv")
    with pytest.raises(SettingError, match=r"1 of 48 are missing, such as images/07\.png.*data\.unreadable=skip"):
        load_data(path, **SPLIT)
    assert load_data(path, unreadable="skip", **SPLIT).unreadable == (("images/07.png", 3),)


def test_settings_of_columns_are_for_tables(tmp_path: Path) -> None:
    for name in ("image", "label", "split_column", "group"):
        with pytest.raises(SettingError, match=rf"data\.{name}='x'.*null, as digits has no columns"):
            load_data("digits", **{name: "x"})


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    image(number).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("memory_gib", [4.0, 0.0])
@pytest.mark.parametrize("kind", ["bytes", "struct", "paths"])
def test_parquet(frame: pd.DataFrame, tmp_path: Path, kind: str, memory_gib: float) -> None:
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    stored = [png(number) for number in range(N)]
    columns: dict[str, Any] = {
        "bytes": stored,
        "struct": [{"bytes": one, "path": None} for one in stored],
        "paths": frame["image"].tolist(),
    }
    path = tmp_path / "a.parquet"
    parquet.write_table(arrow.table({"img": columns[kind], "label": frame["label"].tolist()}), path, row_group_size=7)
    data = load_data(path, memory_gib=memory_gib, **SPLIT)
    assert data.classes == CLASSES and sum(map(len, data.splits)) == N
    for split in (data.test, pickle.loads(pickle.dumps(data)).test):
        for name, x, y in zip(split.names, next(split.clean(99)).x, split.labels.tolist(), strict=True):
            number = int(name[-10:-4] if kind == "paths" else name[-6:]) if kind != "paths" else int(name[7:9])
            expected = torch.from_numpy(np.array(image(number))).permute(2, 0, 1)
            shown = (x * torch.tensor(data.std)[:, None, None] + torch.tensor(data.mean)[:, None, None]) * 255
            assert torch.equal(shown.round().long(), expected.long()) and y == number % 4


def test_parquet_that_is_damaged_or_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    (tmp_path / "a.parquet").write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    with pytest.raises(SettingError, match=r"a\.parquet.*a parquet file"):
        load_data(tmp_path / "a.parquet")
    parquet.write_table(
        arrow.table({"image": [png(n) for n in range(N)], "label": list(range(N))}), tmp_path / "b.parquet"
    )
    monkeypatch.setattr(tables, "LARGEST_PARQUET", 1000)
    with pytest.raises(SettingError, match=r"at most 1,000 bytes; it has .*hfds/FOLDER"):
        load_data(tmp_path / "b.parquet")


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    import sys

    for name in ("pyarrow", "pyarrow.parquet", "datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SettingError, match=r"pyarrow for \.parquet.*nas_kd\[parquet\]"):
        load_data(tmp_path / "a.parquet")
    with pytest.raises(SettingError, match=r"datasets for hfds/.*nas_kd\[hf\]"):
        load_data("hfds/some")


@pytest.mark.parametrize(
    ("columns", "names", "given"),
    [
        (("image", "label"), True, {}),
        (("img", "fine_label"), True, {}),
        (("picture", "kind"), False, {}),
        (("picture", "kind"), False, {"image": "picture", "label": "kind"}),
    ],
)
def test_data_sets_of_hugging_face(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    columns: tuple[str, str],
    names: bool,
    given: dict[str, Any],
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    feature = datasets.ClassLabel(names=list(CLASSES)) if names else datasets.Value("string")
    y = [number % 4 if names else CLASSES[number % 4] for number in range(N)]
    features = datasets.Features({columns[0]: datasets.Image(), columns[1]: feature})
    whole = datasets.Dataset.from_dict({columns[0]: [image(n) for n in range(N)], columns[1]: y}, features=features)
    whole.select(range(36)).to_parquet(tmp_path / "set/train-00000.parquet")
    whole.select(range(36, N)).to_parquet(tmp_path / "set/validation-00000.parquet")
    where = f"hfds/{os.path.abspath(tmp_path / 'set')}"
    data = load_data(where, test=where, root=str(tmp_path / "kept"), **SPLIT, **given)
    assert data.classes == CLASSES and (len(data.test), data.in_chans, data.resolution) == (12, 3, 8)
    for name, label in labels(data).items():
        assert name.startswith(f"{CLASSES[label]}/")
    file = load_data(tmp_path / "set/train-00000.parquet", **SPLIT, **given)  # which says what numbers stand for
    assert file.classes == CLASSES and sum(map(len, file.splits)) == 36
    with pytest.raises(SettingError, match=r"split 'train2'.*data\.train_split"):
        load_data(where, root=str(tmp_path / "kept"), train_split="train2")
