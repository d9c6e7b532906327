"""Loading: what the splits hold, that it does not depend on packing, and batches."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from nas_kd.data import AllViews, Data, Split, ViewTable, load_data

Make = Callable[..., Path]


def everything(split: Split) -> Tensor:
    return torch.cat([batch.x for batch in split.clean(16)])


def same(a: Data, b: Data) -> None:
    assert a.frame().equals(b.frame())
    assert (a.mean, a.std, a.classes, a.in_chans) == (b.mean, b.std, b.classes, b.in_chans)
    for one, other in zip(a.splits, b.splits, strict=True):
        assert torch.equal(everything(one), everything(other))
    for one, other in zip(a.train.batches(8, epoch=3, seed=1), b.train.batches(8, epoch=3, seed=1), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(one, other, strict=True))


def test_digits() -> None:
    data = load_data("digits")
    assert sum(len(split) for split in data.splits) == 1797
    assert (data.num_classes, data.in_chans, data.resolution) == (10, 1, 8)
    frame = data.frame()
    assert list(frame.columns) == ["name", "label", "split"] and frame.name.is_unique
    assert set(frame.split) == {"train", "rate", "select", "test"}
    table = frame.groupby(["split", "label"]).size().unstack()
    assert table.shape == (4, 10) and not table.isna().any().any()
    assert ((table.loc["test"] / table.sum()).sub(0.2).abs() < 0.06).all()
    assert data.train.views is not None and (data.train.views.pad, data.train.views.flip) == (1, False)
    assert data.rate.views is data.select.views is data.test.views is None
    x = everything(data.train)
    assert abs(float(x.mean())) < 1e-3 and abs(float(x.std()) - 1) < 1e-3
    from sklearn.datasets import load_digits

    truth = load_digits()
    rows = [int(name.split("/")[1]) for name in data.test.names]
    restored = everything(data.test)[:, 0] * data.std[0] + data.mean[0]
    np.testing.assert_allclose(restored, truth.images[rows] / 16, atol=0.5 / 255 + 1e-6)
    assert data.test.labels.tolist() == truth.target[rows].tolist()


def test_fingerprint_and_settings_that_change_it() -> None:
    kept = load_data("digits")
    assert load_data("digits", views=4).fingerprint == kept.fingerprint
    others = [load_data("digits", **change) for change in ({"seed": 1}, {"rate": 0.1}, {"subset": 500})]
    prints = {kept.fingerprint, *(data.fingerprint for data in others)}
    assert len(prints) == 4 and all(len(text) == 64 for text in prints)
    x, y = torch.randint(0, 256, (60, 3, 4, 4)).to(torch.uint8), torch.arange(60) % 2
    one = load_data((x, y), pad=1)
    x = x.clone()
    x[7, 1, 2, 2] += 1
    assert load_data((x, y), pad=1).fingerprint != one.fingerprint


def test_membership_is_independent_of_the_other_settings() -> None:
    base = load_data("digits")
    wider = load_data("digits", rate=0.1)
    assert wider.test.names == base.test.names
    assert len(set(base.rate.names) - set(wider.rate.names)) <= 3  # only where a class's ladder step moved
    small, smaller = load_data("digits", subset=600), load_data("digits", subset=300)
    names = [{n for s in d.splits[:3] for n in s.names} for d in (small, smaller)]
    assert len(names[0]) == 600 and len(names[1]) == 300 and names[1] < names[0]
    assert np.bincount(torch.cat([s.labels for s in smaller.splits[:3]])).min() >= 28
    exact = load_data("digits", rate=120, select=50, subset=900)
    assert (len(exact.rate), len(exact.select), len(exact.train)) == (120, 50, 730)
    assert load_data("digits", rate=0, select=0.0).frame().split.nunique() == 2


def test_mean_and_std_are_the_train_splits(make_folder: Make) -> None:
    root = make_folder()
    data = load_data(root)
    pixels = np.stack([np.asarray(Image.open(root / name)) for name in data.train.names]) / 255
    np.testing.assert_allclose(data.mean, pixels.mean((0, 1, 2)), atol=5.1e-5)
    np.testing.assert_allclose(data.std, pixels.std((0, 1, 2)), atol=5.1e-5)
    flat = load_data((torch.full((40, 1, 4, 4), 51, dtype=torch.uint8), torch.arange(40) % 2), pad=1)
    assert flat.mean == (0.2,) and flat.std == (0.001,)


def test_packing_does_not_matter(make_folder: Make, make_tar: Callable[..., Path]) -> None:
    root = make_folder()
    other = make_folder("others", count=5, start=100)
    data = load_data(root, test=other, views=4)
    same(data, load_data(make_tar(root), test=make_tar(other, "deep/down/"), views=4))
    same(data, load_data(make_tar(root, "./pets/"), test=other, views=4))
    same(data, load_data(root, test=other, views=4, memory_gib=0))
    same(data, load_data(make_tar(root), test=make_tar(other), views=4, memory_gib=0))
    same(data, pickle.loads(pickle.dumps(load_data(make_tar(root), test=other, views=4, memory_gib=0))))
    assert data.frame().query("split == 'test'").name.tolist() == data.test.names


def test_lazy_with_a_resolution_and_mixed_modes(make_folder: Make) -> None:
    root = make_folder(count=12, size=(20, 14))
    make_folder(count=6, start=50, size=(11, 17), mode="L")
    settings = {"resolution": 10, "views": 4}
    data = load_data(root, **settings)
    assert (data.resolution, data.in_chans) == (10, 3)
    same(data, load_data(root, memory_gib=0, **settings))
    name = next(n for n in data.train.names if int(n[-8:-4]) < 12)
    image = Image.open(root / name).resize((14, 10), Image.Resampling.BICUBIC).crop((2, 0, 12, 10))
    x = everything(data.train)[data.train.names.index(name)]
    restored = (x * torch.tensor(data.std)[:, None, None] + torch.tensor(data.mean)[:, None, None]) * 255
    np.testing.assert_allclose(restored.permute(1, 2, 0), np.asarray(image), atol=1e-2)


def test_grey_folder_and_split_sub_folders(make_folder: Make) -> None:
    make_folder("set/train", mode="L")
    make_folder("set/val", mode="L", count=4, start=500)
    root = make_folder("set/val", mode="L", count=4, start=500).parent
    data = load_data(root, test=root)
    assert data.in_chans == 1 and len(data.test) == 12 and len(data.mean) == 1
    assert data.classes == ("cat", "dog", "owl")
    # a class that happens to be called train is a class
    vehicles = make_folder("vehicles", classes=("bus", "train"))
    assert load_data(vehicles).classes == ("bus", "train")


def test_arrays_resize() -> None:
    x, y = torch.randint(0, 256, (40, 1, 16, 12)).to(torch.uint8), torch.arange(40) % 2
    data = load_data((x, y), resolution=8, test=(255 - x, y))
    assert data.resolution == 8 and everything(data.test).shape == (40, 1, 8, 8)


def test_batches_cover_the_split_and_repeat() -> None:
    train = load_data("digits").train
    epoch = list(train.batches(64, epoch=5, seed=3))
    assert len(epoch) == train.steps(64) == len(train) // 64
    again = list(train.batches(64, epoch=5, seed=3))
    assert all(torch.equal(a.x, b.x) for a, b in zip(epoch, again, strict=True))
    whole = list(train.batches(64, epoch=5, seed=3, drop_last=False))
    assert len(whole) == train.steps(64, drop_last=False) == len(epoch) + 1
    index = torch.cat([batch.index for batch in whole])
    assert sorted(index.tolist()) == list(range(len(train)))
    assert torch.equal(torch.cat([batch.y for batch in whole]), train.labels[index])
    for epoch_, seed in ((6, 3), (5, 4)):
        assert not torch.equal(next(train.batches(64, epoch=epoch_, seed=seed)).index, whole[0].index)
    assert train.steps(5000) == 1 and len(next(train.batches(5000, epoch=0, seed=0)).y) == len(train)


def test_views_do_not_depend_on_the_run_and_fill_the_cache() -> None:
    train = load_data("digits").train
    assert isinstance(train.views, ViewTable)
    everyone = torch.arange(len(train))
    cache = torch.stack([train.shown(everyone, torch.full_like(everyone, v)).x for v in range(8)])  # (K, N, ...)
    for epoch, seed in ((0, 0), (0, 9), (13, 0)):
        for batch in train.batches(128, epoch=epoch, seed=seed):
            assert torch.equal(batch.x, cache[batch.view, batch.index])
            assert torch.equal(batch.view, train.views.at(batch.index, epoch))


def test_all_views_are_the_crops_that_their_numbers_name() -> None:
    data = load_data("digits", views="all", flip=True)
    train, black = data.train, -data.mean[0] / data.std[0]
    assert isinstance(train.views, AllViews) and len(train.views) == 18
    pixels = {}
    clean = next(train.clean(5000)).x  # (N, C, H, W)
    padded = torch.nn.functional.pad(clean, (1, 1, 1, 1), value=black)
    for code in range(18):
        corner = code % 9
        crop = padded[:, :, corner // 3 :, corner % 3 :][:, :, :8, :8]
        pixels[code] = crop.flip(3) if code >= 9 else crop
    for epoch, seed in ((0, 0), (25, 9)):
        for batch in train.batches(128, epoch=epoch, seed=seed):
            expected = torch.stack(
                [pixels[v][n] for v, n in zip(batch.view.tolist(), batch.index.tolist(), strict=True)]
            )
            torch.testing.assert_close(batch.x, expected, rtol=0, atol=1e-5)
            assert torch.equal(batch.view, train.views.at(batch.index, epoch))


@pytest.mark.parametrize("views", [0, None])
def test_fresh_crops(views: int | None) -> None:
    train = load_data("digits", views=views, flip=True).train
    whole = next(train.batches(5000, epoch=1, seed=0))
    assert train.views is None and (whole.view == -1).all()
    parts = torch.cat([batch.x for batch in train.batches(100, epoch=1, seed=0, drop_last=False)])
    assert torch.equal(parts, whole.x)  # a crop does not depend on the batch size
    other = next(train.batches(5000, epoch=1, seed=1))
    assert not torch.equal(other.x[other.index.argsort()], whole.x[whole.index.argsort()])


def test_clean() -> None:
    train = load_data("digits").train
    batches = list(train.clean(100))
    assert torch.equal(torch.cat([b.index for b in batches]), torch.arange(len(train)))
    assert all((b.view == -1).all() for b in batches)
    limited = torch.cat([b.index for b in train.clean(64, limit=150)])
    assert len(limited) == len(set(limited.tolist())) == 150
    assert torch.equal(torch.cat([b.index for b in train.clean(64, limit=100)]), limited[:100])
    counts = torch.bincount(train.labels[limited], minlength=10)
    assert int(counts.min()) >= 13 and int(counts.max()) <= 18
    assert sum(len(b.y) for b in train.clean(64, limit=10**6)) == len(train)


@pytest.mark.skipif("NAS_KD_TEST_DATA" not in os.environ, reason="NAS_KD_TEST_DATA is not set")
def test_cifar_tar() -> None:
    data = load_data(Path(os.environ["NAS_KD_TEST_DATA"]) / "test.tar", subset=1000, rate=100, select=100)
    assert [len(split) for split in data.splits[:3]] == [800, 100, 100]
    assert data.classes[0] == "airplane" and (data.in_chans, data.resolution) == (3, 32)
    assert all(150 <= count <= 250 for count in torch.bincount(data.test.labels).tolist())
    assert torch.bincount(data.rate.labels).tolist() == [10] * 10
    assert data.train.views is not None and data.train.views.flip and data.train.views.pad == 4
    batch = next(data.train.batches(64, epoch=0, seed=0))
    assert batch.x.shape == (64, 3, 32, 32) and batch.x.is_contiguous(memory_format=torch.channels_last)
