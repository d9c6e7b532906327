"""Images of equal pixels: never in test and training, told everywhere else; splits of rare classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nas_kd.data import Data, load_data
from nas_kd.data.duplicates import Equal, count_equal, together
from nas_kd.data.split import HIGHEST, LOWEST, TRAIN, cut, draw, fewest
from nas_kd.data.summary import summary
from nas_kd.errors import SettingError

SETTINGS: dict[str, Any] = {"rate": 0.15, "select": 0.15, "pad": 0, "views": 1}


def noise(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (count, 1, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def homes(data: Data) -> dict[int, str]:
    """Return the split of each image by its number."""
    return {int(name.rpartition("/")[2]): split.name for split in data.splits for name in split.names}


def test_test_images_that_are_training_images_are_refused() -> None:
    x, y, other = noise(80), torch.arange(80) % 2, noise(20, seed=1)
    assert len(load_data((x, y), test=(other, y[:20]), **SETTINGS).test) == 20
    other[3] = x[17]
    other[9] = x[4]
    with pytest.raises(
        SettingError, match=r"2 of 20 test images .* 1/000003.*1/000017 is equal.*data\.duplicates=keep"
    ):
        load_data((x, y), test=(other, y[:20]), **SETTINGS)
    data = load_data((x, y), test=(other, y[:20]), duplicates="keep", **SETTINGS)
    assert data.found.equal == Equal(images=4, moved=0, apart=4, labels=2)  # 9 is of another class than 4
    lines = [line for line in summary(data, "tensors") if "pixels" in line]
    assert lines == [
        "data: 4 images have the pixels of another: 4 have a twin in another split, 2 have a twin of another label"
    ]


@pytest.mark.parametrize("memory_gib", [4.0, 0.0])
def test_files_of_the_same_bytes_by_other_names(tmp_path: Path, memory_gib: float) -> None:
    for at in range(40):
        for root, count in (("d", 40), ("t", 10)):
            if at < count:
                path = tmp_path / root / ("cat", "dog")[at % 2] / f"{root}{at}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(noise(80)[at + 40 * (root == "t"), 0].numpy()).save(path)
    load_data(tmp_path / "d", test=tmp_path / "t", memory_gib=memory_gib, **SETTINGS)
    (tmp_path / "t/cat/new.png").write_bytes((tmp_path / "d/cat/d6.png").read_bytes())
    with pytest.raises(SettingError, match=r"1 of 11 test images .* cat/new\.png.*cat/d6\.png is equal"):
        load_data(tmp_path / "d", test=tmp_path / "t", memory_gib=memory_gib, **SETTINGS)
    Image.open(tmp_path / "d/cat/d6.png").save(tmp_path / "t/cat/new.png", format="BMP")  # equal pixels, other bytes
    settings = {"test": tmp_path / "t", "memory_gib": memory_gib, **SETTINGS}
    if memory_gib:
        with pytest.raises(SettingError, match=r"cat/new\.png.*cat/d6\.png is equal"):
            load_data(tmp_path / "d", **settings)
    else:  # images that are not kept decoded are compared by their bytes
        assert len(load_data(tmp_path / "d", **settings).test) == 11


def test_equal_images_go_to_one_split_and_the_others_stay() -> None:
    x, y = noise(300), torch.arange(300) % 3
    before = homes(load_data((x, y), **SETTINGS))
    pairs = {at: at + 150 for at in range(60)}  # of one class, as 150 is a multiple of 3
    for at, twin in pairs.items():
        x[twin] = x[at]
    data = load_data((x, y), **SETTINGS)
    after = homes(data)
    assert all(after[at] == after[twin] for at, twin in pairs.items())
    assert sum(before[at] != before[twin] for at, twin in pairs.items()) > 20  # so many were apart
    twins = {*pairs, *pairs.values()}
    assert {n: s for n, s in after.items() if n not in twins} == {n: s for n, s in before.items() if n not in twins}
    moved = sum(before[n] != after[n] for n in twins)
    assert data.found.equal == Equal(images=120, moved=moved, apart=0, labels=0)
    kept = load_data((x, y), duplicates="keep", **SETTINGS)
    assert homes(kept) == before and kept.found.equal.apart == 2 * moved


def test_groups_that_share_an_image_go_to_one_split_whole(tmp_path: Path) -> None:
    x = noise(120)
    x[60] = x[0]  # of groups 0 and 20
    for at in range(120):
        Image.fromarray(x[at, 0].numpy()).save(tmp_path / f"{at}.png")
    lines = ["image,label,group", *(f"{at}.png,{'ab'[at // 3 % 2]},g{at // 3}" for at in range(120))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    for seed in range(8):  # the two are in one split by chance in half of them
        data = load_data(tmp_path / "t.csv", seed=seed, **SETTINGS)
        found = {int(name[:-4]): split.name for split in data.splits for name in split.names}
        assert all(len({found[3 * group + at] for at in range(3)}) == 1 for group in range(40))
        assert found[0] == found[60] and data.found.equal.apart == 0


def test_images_that_are_all_equal_stay_where_they_are() -> None:
    x, y = torch.full((60, 1, 4, 4), 7, dtype=torch.uint8), torch.arange(60) % 2
    data = load_data((x, y), **SETTINGS)
    assert all(len(split) for split in data.splits) and data.found.equal.apart == 60
    assert homes(data) == homes(load_data((noise(60), y), **SETTINGS))


def test_together_and_count_by_hand() -> None:
    rows = {"train": np.array([2, 4, 8, 9]), "rate": np.array([3, 7]), "test": np.array([5, 6])}
    used = np.array([2, 3, 4, 5, 6, 7, 8, 9])
    keys = np.array([b"a", b"a", b"b", b"c", b"a", b"d", b"b", b"e"])  # 2, 3 and 6 are equal, and 4 and 8
    draws = np.array([0.5, 0.2, 0.1, 0.3, 0.9, 0.8, 0.7, 0.6])  # of the first, row 3 has the smallest
    found, moved = together(rows, used, keys, draws, np.zeros(8, dtype=np.int64))
    assert {name: mine.tolist() for name, mine in found.items()} == {
        "train": [4, 8, 9],
        "rate": [2, 3, 6, 7],
        "test": [5],
    }
    assert moved == 2
    splits = {"train": np.array([b"a", b"b", b"b"]), "test": np.array([b"a", b"c"])}
    labels = {"train": np.array([0, 1, 0]), "test": np.array([0, 1])}
    assert count_equal(splits, labels, 5) == Equal(images=4, moved=5, apart=2, labels=2)


def rare(count: int, share: int) -> np.ndarray:
    """Return labels of which one in ``share`` is of the second class."""
    return (np.arange(count) % share == share - 1).astype(np.int64)


@pytest.mark.parametrize(("count", "least"), [(3000, 8), (1000, 3), (500, 1)])
def test_a_rare_class_has_a_least_number_of_images(count: int, least: int) -> None:
    for seed in range(12):
        data = load_data((noise(count), rare(count, 50)), seed=seed, pad=0, views=1)
        rate, select, train = (int((split.labels == 1).sum()) for split in (data.rate, data.select, data.train))
        assert min(rate, select) >= max(least, min(8, (rate + select + train) // 4))
        assert train >= rate + select  # at least half is left to train on


def test_the_least_number_by_hand() -> None:
    assert fewest(np.repeat([0, 1], [784, 16]), 0.05).tolist() == [8, 4]  # a quarter of 16
    assert fewest(np.repeat([0, 1], [3920, 80]), 0.05).tolist() == [8, 8]
    assert fewest(np.repeat([0, 1], [784, 16]), 8).tolist() == [2, 2]  # half of the mean, of 8 images and two classes
    assert fewest(np.repeat(np.arange(1000), 5), 0.05).tolist() == [1] * 1000
    assert fewest(np.repeat([0, 1, 2], [90, 3, 7]), 0.3).tolist() == [5, 1, 1]


@pytest.mark.parametrize("each", [20, 60, 144, 500])
@pytest.mark.parametrize("share", [0.02, 0.05, 0.15])
def test_splits_of_classes_of_one_size_stay_as_they_were(each: int, share: float) -> None:
    labels = np.repeat(np.arange(10), each)
    names = [f"{c}/{i}.png" for c in range(10) for i in range(each)]
    for seed in range(20):
        u = draw(names, seed, "split")
        plain = cut(labels, u, share, share)
        floors = fewest(labels, share), fewest(labels, share)
        found = cut(labels, u, share, share, 1, floors)
        few = [c for c in range(10) for code in (LOWEST, HIGHEST) if (plain[labels == c] == code).sum() < floors[0][c]]
        assert np.array_equal(plain[~np.isin(labels, few)], found[~np.isin(labels, few)])
        assert len(few) <= 1 and (found == TRAIN).sum() >= (plain == TRAIN).sum() - 2 * len(few)


def test_numbers_are_split_by_their_names_alone() -> None:
    x, y = noise(400), np.random.default_rng(0).random((400, 3)).astype(np.float32)
    one, other = load_data((x, y), **SETTINGS), load_data((x, y[::-1].copy()), **SETTINGS)
    assert homes(one) == homes(other) and (one.kind, other.kind) == ("regression", "regression")
    shares = (0.56, 0.12, 0.12, 0.2)
    assert all(abs(len(split) - 400 * share) < 40 for split, share in zip(one.splits, shares, strict=True))
