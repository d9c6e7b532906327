"""Stored teacher outputs against live ones; resuming, stale caches and damage."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nas_kd.data import Data, load_data
from nas_kd.errors import SettingError
from nas_kd.teacher import Teacher, ViewCache, cifar_resnet8, load_teacher


def make_data(views: int | None = 3, augment: str | None = None, seed: int = 0) -> Data:
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(0, 256, (60, 3, 8, 8), dtype=torch.uint8, generator=generator)
    y = torch.arange(60) % 3
    return load_data((x, y), rate=6, select=6, views=views, augment=augment, seed=seed)


def make_teacher(data: Data, seed: int = 0) -> Teacher:
    torch.manual_seed(seed)
    return load_teacher(cifar_resnet8(num_classes=3)).bind(data)


@pytest.fixture
def data() -> Data:
    return make_data()


@pytest.fixture
def teacher(data: Data) -> Teacher:
    return make_teacher(data)


class Counting:
    """A teacher that counts the images it sees."""

    def __init__(self, teacher: Teacher, stop_after: int | None = None) -> None:
        self.teacher, self.seen, self.stop_after = teacher, 0, stop_after

    def __getattr__(self, name: str) -> Any:
        return getattr(self.teacher, name)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.stop_after is not None and self.seen >= self.stop_after:
            raise KeyboardInterrupt
        self.seen += len(x)
        return self.teacher(x)


class Units:
    def __init__(self) -> None:
        self.done = 0

    def advance(self, units: int = 1, **last: float) -> None:
        self.done += units


def test_cached_logits_are_the_teachers(tmp_path: Path, data: Data, teacher: Teacher) -> None:
    cache = ViewCache.open(tmp_path, teacher, data, batch_size=16)
    for epoch in range(4):
        for batch in data.train.batches(8, epoch=epoch, seed=epoch + 5, drop_last=False):
            stored, live = cache.logits(batch), teacher(batch.x)
            assert stored is not None and stored.dtype == torch.float32
            torch.testing.assert_close(stored, live, rtol=2**-10, atol=1e-5)
    for name in ("rate", "select", "test"):
        live = torch.cat([teacher(batch.x) for batch in getattr(data, name).clean(5)])
        torch.testing.assert_close(cache.split_logits(name), live, rtol=1e-5, atol=1e-5)
        assert cache.split_logits(name).dtype == torch.float32
    with pytest.raises(SettingError, match="rate, select, test"):
        cache.split_logits("train")
    assert cache.teacher is teacher and cache.fingerprint == teacher.fingerprint


def test_a_filled_cache_asks_the_teacher_only_for_its_check(
    tmp_path: Path, data: Data, teacher: Teacher
) -> None:
    counting, units = Counting(teacher), Units()
    todo = ViewCache.todo(tmp_path, counting, data)  # type: ignore[arg-type]
    assert todo == 3 * len(data.train) + len(data.rate) + len(data.select)
    ViewCache.open(tmp_path, counting, data, batch_size=16, progress=units)  # type: ignore[arg-type]
    assert counting.seen == units.done == todo
    assert ViewCache.todo(tmp_path, teacher, data) == 0
    again = Counting(teacher)
    cache = ViewCache.open(tmp_path, again, data, batch_size=16)  # type: ignore[arg-type]
    assert again.seen == 16
    for batch in data.train.batches(8, epoch=0, seed=0):
        cache.logits(batch)
    assert again.seen == 16


def test_killed_and_resumed_it_is_the_same(tmp_path: Path, data: Data, teacher: Teacher) -> None:
    whole = ViewCache.open(tmp_path / "a", teacher, data, batch_size=16)
    killed = Counting(teacher, stop_after=len(data.train) + 20)
    with pytest.raises(KeyboardInterrupt):
        ViewCache.open(tmp_path / "b", killed, data, batch_size=16)  # type: ignore[arg-type]
    folder = next((tmp_path / "b").iterdir())
    assert json.loads((folder / "cache.json").read_text())["filled"] == 1
    with pytest.raises(SettingError, match="1 of 3 views"):
        ViewCache.load(folder)
    rest = Counting(teacher)
    resumed = ViewCache.open(tmp_path / "b", rest, data, batch_size=16)  # type: ignore[arg-type]
    assert rest.seen == 2 * len(data.train) + len(data.rate) + len(data.select)
    for name in ("views.npy", "rate.npy", "select.npy"):
        assert (whole.folder / name).read_bytes() == (resumed.folder / name).read_bytes()


def test_workers_open_it_without_a_teacher(tmp_path: Path, data: Data, teacher: Teacher) -> None:
    filled = ViewCache.open(tmp_path, teacher, data)
    cache = ViewCache.load(filled.folder)
    batch = next(iter(data.train.view_batches(7, 1)))
    mine, theirs = cache.logits(batch), filled.logits(batch)
    assert mine is not None and theirs is not None and torch.equal(mine, theirs)
    assert torch.equal(cache.split_logits("rate"), filled.split_logits("rate"))
    assert cache.teacher is None and cache.fingerprint == teacher.fingerprint
    with pytest.raises(SettingError, match="call split_logits"):
        cache.split_logits("test")
    filled.split_logits("test")
    assert len(cache.split_logits("test")) == len(data.test)
    with pytest.raises(SettingError, match="cache.json"):
        ViewCache.load(tmp_path)


def test_another_teacher_data_set_or_views_gets_its_own_folder(
    tmp_path: Path, data: Data, teacher: Teacher
) -> None:
    first = ViewCache.open(tmp_path, teacher, data)
    before = (first.folder / "views.npy").read_bytes()
    others = [
        ViewCache.open(tmp_path, make_teacher(data, seed=1), data),
        ViewCache.open(tmp_path, teacher, make_data(views=2)),
        ViewCache.open(tmp_path, teacher, make_data(seed=9)),
    ]
    assert len({cache.folder for cache in (first, *others)}) == 4
    assert (first.folder / "views.npy").read_bytes() == before


def test_views_that_are_not_stored_are_not_served(tmp_path: Path, teacher: Teacher) -> None:
    fresh = make_data(views=None)
    cache = ViewCache.open(tmp_path, teacher, fresh)
    assert not (cache.folder / "views.npy").exists()
    assert all(cache.logits(batch) is None for batch in fresh.train.batches(8, epoch=0, seed=0))
    assert len(cache.split_logits("select")) == len(fresh.select)
    ViewCache.open(tmp_path, teacher, fresh)  # the check works without views too
    data = make_data()
    served = ViewCache.open(tmp_path, teacher, data)
    assert served.logits(next(iter(data.rate.clean(4)))) is None


def test_a_cache_that_is_not_the_teachers_is_refused(tmp_path: Path, data: Data, teacher: Teacher) -> None:
    cache = ViewCache.open(tmp_path, teacher, data)
    stored = np.lib.format.open_memmap(cache.folder / "views.npy", mode="r+")
    stored[0, 2] += np.float16(0.1) * (1 + abs(stored[0, 2]))
    stored.flush()
    with pytest.raises(SettingError, match="computes now.*delete"):
        ViewCache.open(tmp_path, teacher, data)


class Loud(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.mean((2, 3))) * 1e7


def test_logits_that_fp16_cannot_hold_are_refused(tmp_path: Path, data: Data) -> None:
    with pytest.raises(SettingError, match="finite and at most 65504"):
        ViewCache.open(tmp_path, load_teacher(Loud()).bind(data), data)


def test_a_full_disk_is_said_before_anything_is_computed(
    tmp_path: Path, data: Data, teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))  # type: ignore[attr-defined]
    counting = Counting(teacher)
    with pytest.raises(SettingError, match="free space"):
        ViewCache.open(tmp_path, counting, data)  # type: ignore[arg-type]
    assert not counting.seen


def test_auto_augmentation_falls_back(tmp_path: Path, teacher: Teacher) -> None:
    data = make_data(augment="rand-m9-mstd0.5")
    cache = ViewCache.open(tmp_path, teacher, data)
    batches: Iterator[Any] = data.train.batches(8, epoch=0, seed=0)
    assert cache.logits(next(batches)) is None
