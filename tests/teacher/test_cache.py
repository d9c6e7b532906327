"""Stored teacher outputs against live ones; lazily, ahead, by several processes; stale caches and damage."""

from __future__ import annotations

import dataclasses
import json
import logging
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nas_kd.data import Data, load_data
from nas_kd.errors import SettingError
from nas_kd.teacher import Teacher, ViewCache, cifar_resnet8, load_teacher


def make_data(views: int | str | None = 3, augment: str | None = None, seed: int = 0) -> Data:
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
        self.sizes: set[int] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.teacher, name)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.stop_after is not None and self.seen >= self.stop_after:
            raise KeyboardInterrupt
        self.seen += len(x)
        self.sizes.add(len(x))
        return self.teacher(x)


class Units:
    def __init__(self) -> None:
        self.done = 0

    def advance(self, units: int = 1, **last: float) -> None:
        self.done += units


def test_cached_logits_are_the_teachers(tmp_path: Path, data: Data, teacher: Teacher) -> None:
    cache = ViewCache.open(tmp_path, teacher, data)
    for epoch in range(4):
        for batch in data.train.batches(8, epoch=epoch, seed=epoch + 5, drop_last=False):
            stored, live = cache.logits(batch), teacher(batch.x)
            assert stored.dtype == torch.float32
            torch.testing.assert_close(stored, live, rtol=2**-10, atol=1e-5)
    for name in ("rate", "select", "test"):
        live = torch.cat([teacher(batch.x) for batch in getattr(data, name).clean(5)])
        torch.testing.assert_close(cache.split_logits(name), live, rtol=1e-5, atol=1e-5)
        assert cache.split_logits(name).dtype == torch.float32
    with pytest.raises(SettingError, match="rate, select, test"):
        cache.split_logits("train")
    assert cache.teacher is teacher and cache.fingerprint == teacher.fingerprint


@pytest.mark.parametrize("views", [3, "all"])
def test_filled_lazily_and_ahead_are_the_same_bits(tmp_path: Path, teacher: Teacher, views: int | str) -> None:
    data, epochs = make_data(views), 3
    assert data.train.views is not None
    ahead = ViewCache.open(tmp_path / "ahead", teacher, data, epochs=epochs)
    counting: Any = Counting(teacher)
    lazy = ViewCache.open(tmp_path / "lazy", counting, data, epochs=0)
    counting.sizes.clear()
    assert lazy.missing(data.train.views, epochs) == epochs * len(data.train)
    for size, seed in ((7, 0), (31, 1)):  # whatever the batches, and which of them came first
        for epoch in reversed(range(epochs)):
            for batch in data.train.batches(size, epoch=epoch, seed=seed, drop_last=False):
                found, expected = lazy.logits(batch), ahead.logits(batch)
                assert torch.equal(found, expected)
                torch.testing.assert_close(found, teacher(batch.x), rtol=2**-10, atol=1e-5)
    assert counting.sizes == {32}  # other sizes may round otherwise
    assert lazy.missing(data.train.views, epochs) == 0 and lazy.folder.name == ahead.folder.name
    assert (lazy.folder / "views.npy").read_bytes() == (ahead.folder / "views.npy").read_bytes()


def test_only_what_is_missing_is_asked(tmp_path: Path, data: Data, teacher: Teacher) -> None:
    counting, units = Counting(teacher), Units()
    todo = ViewCache.todo(tmp_path, counting, data)  # type: ignore[arg-type]
    assert todo == 3 * len(data.train) + len(data.rate) + len(data.select)
    assert ViewCache.todo(tmp_path, teacher, data, epochs=2) == todo - len(data.train)
    ViewCache.open(tmp_path, counting, data, progress=units)  # type: ignore[arg-type]
    assert units.done == todo and counting.seen < todo + 3 * 32  # whole chunks
    assert ViewCache.todo(tmp_path, teacher, data) == 0
    again = Counting(teacher)
    cache = ViewCache.open(tmp_path, again, data)  # type: ignore[arg-type]
    probed = again.seen
    assert 0 < probed <= 64 + len(data.rate)
    for batch in data.train.batches(8, epoch=0, seed=0):
        cache.logits(batch)
    assert again.seen == probed


def test_all_views_of_another_training_cost_nothing(tmp_path: Path, teacher: Teacher) -> None:
    data = make_data("all")
    first = ViewCache.open(tmp_path, teacher, data, epochs=0)
    for epoch in range(2):
        for batch in data.train.batches(8, epoch=epoch, seed=0, drop_last=False):
            first.logits(batch)
    counting = Counting(teacher)
    second = ViewCache.open(tmp_path, counting, data, epochs=2)  # type: ignore[arg-type]
    probed = counting.seen
    for epoch in range(2):
        for batch in data.train.batches(16, epoch=epoch, seed=1):
            second.logits(batch)
    assert counting.seen == probed
    second.logits(next(data.train.batches(16, epoch=2, seed=1)))
    assert counting.seen == probed + 32


def test_batches_that_were_changed_do_not_spoil_it(tmp_path: Path, data: Data, teacher: Teacher) -> None:
    cache = ViewCache.open(tmp_path, teacher, data, epochs=0)
    batch = next(data.train.batches(8, epoch=0, seed=0))
    found = cache.logits(batch._replace(x=torch.zeros_like(batch.x)))
    torch.testing.assert_close(found, teacher(batch.x), rtol=2**-10, atol=1e-5)


def test_precision_of_the_training_is_not_the_teachers(tmp_path: Path, data: Data, teacher: Teacher) -> None:
    batch = next(data.train.batches(8, epoch=0, seed=0))
    plain = ViewCache.open(tmp_path / "a", teacher, data, epochs=0).logits(batch)
    cache = ViewCache.open(tmp_path / "b", teacher, data, epochs=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = cache.logits(batch)
    assert torch.equal(plain, mixed)


def test_killed_and_resumed_it_is_the_same(tmp_path: Path, data: Data, teacher: Teacher) -> None:
    whole = ViewCache.open(tmp_path / "a", teacher, data)
    killed = Counting(teacher, stop_after=len(data.train) + 20)
    with pytest.raises(KeyboardInterrupt):
        ViewCache.open(tmp_path / "b", killed, data)  # type: ignore[arg-type]
    assert data.train.views is not None
    part = ViewCache.load(next((tmp_path / "b").iterdir()))
    left = part.missing(data.train.views)
    assert 0 < left < 3 * len(data.train)
    units = Units()
    resumed = ViewCache.open(tmp_path / "b", teacher, data, progress=units)
    assert units.done == left + len(data.rate) + len(data.select)
    for name in ("views.npy", "rate.npy", "select.npy"):
        assert (whole.folder / name).read_bytes() == (resumed.folder / name).read_bytes()
    assert json.loads((resumed.folder / "cache.json").read_text())["complete"] is True


WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from test_cache import ViewCache, make_data, make_teacher
data = make_data("all")
cache = ViewCache.open(sys.argv[2], make_teacher(data), data, epochs=0)
for epoch in range(6):
    for batch in data.train.batches(5, epoch=epoch, seed=int(sys.argv[3]), drop_last=False):
        cache.logits(batch)
"""


def test_processes_that_write_at_once_agree(tmp_path: Path, teacher: Teacher) -> None:
    jobs = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(Path(__file__).parent), str(tmp_path / "both"), seed])
        for seed in "01"
    ]
    assert [job.wait(120) for job in jobs] == [0, 0]
    alone = ViewCache.open(tmp_path / "alone", teacher, make_data("all"), epochs=6)
    (folder,) = (tmp_path / "both").iterdir()  # nothing else is left behind
    assert folder.name == alone.folder.name
    assert (folder / "views.npy").read_bytes() == (alone.folder / "views.npy").read_bytes()


def test_workers_open_it_without_a_teacher(tmp_path: Path, data: Data, teacher: Teacher) -> None:
    filled = ViewCache.open(tmp_path, teacher, data)
    cache = pickle.loads(pickle.dumps(filled))
    batch = next(data.train.batches(7, epoch=1, seed=0))
    mine, theirs = cache.logits(batch), filled.logits(batch)
    assert torch.equal(mine, theirs)
    assert torch.equal(cache.split_logits("rate"), filled.split_logits("rate"))
    assert cache.teacher is None and cache.fingerprint == teacher.fingerprint
    with pytest.raises(SettingError, match="call split_logits"):
        cache.split_logits("test")
    filled.split_logits("test")
    assert len(cache.split_logits("test")) == len(data.test)
    with pytest.raises(SettingError, match="cache.json"):
        ViewCache.load(tmp_path)


def test_without_a_teacher_what_lacks_is_said_before_the_training(tmp_path: Path, teacher: Teacher) -> None:
    data = make_data("all")
    cache = ViewCache.load(ViewCache.open(tmp_path, teacher, data, epochs=2).folder)
    cache.bind(data, epochs=2)
    with pytest.raises(SettingError, match=rf"logits of 3 epochs \({len(data.train)} are missing\).*fill"):
        cache.bind(data, epochs=3)
    with pytest.raises(SettingError, match="fill"):
        cache.logits(next(data.train.batches(8, epoch=2, seed=0)))
    with pytest.raises(SettingError, match="opened with its teacher.*fill"):
        cache.fill(3)
    fresh = make_data(views=None)
    with pytest.raises(SettingError, match="different views"):
        cache.bind(fresh)  # nothing could be served
    ViewCache.open(tmp_path, teacher, data, epochs=0).bind(fresh)  # the teacher runs live


def test_another_teacher_data_set_or_views_gets_its_own_folder(tmp_path: Path, data: Data, teacher: Teacher) -> None:
    first = ViewCache.open(tmp_path, teacher, data)
    before = (first.folder / "views.npy").read_bytes()
    others = [
        ViewCache.open(tmp_path, make_teacher(data, seed=1), data),
        ViewCache.open(tmp_path, teacher, make_data(views=2)),
        ViewCache.open(tmp_path, teacher, make_data(views="all"), epochs=1),
        ViewCache.open(tmp_path, teacher, make_data(seed=9)),
    ]
    assert len({cache.folder for cache in (first, *others)}) == 5
    assert (first.folder / "views.npy").read_bytes() == before


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (make_data(seed=9), "different data"),
        (make_data(views=2), "different views"),
        (dataclasses.replace(make_data(), mean=(0.5, 0.5, 0.5)), "different mean"),
        (dataclasses.replace(make_data(), resolution=9), "different resolution"),
    ],
)
def test_a_cache_of_other_data_is_refused(
    tmp_path: Path, data: Data, teacher: Teacher, other: Data, named: str
) -> None:
    cache = ViewCache.open(tmp_path, teacher, data, epochs=0)
    assert cache.bind(make_data()) is cache
    with pytest.raises(SettingError, match=named) as caught:
        cache.bind(other)
    assert str(cache.folder) in str(caught.value) and "ViewCache.open" in str(caught.value)


LIVE = "this augmentation is not cached: the teacher runs live instead"


def test_views_that_are_not_stored_are_taught_live(
    tmp_path: Path, teacher: Teacher, caplog: pytest.LogCaptureFixture
) -> None:
    fresh = make_data(views=None)
    cache = ViewCache.open(tmp_path, teacher, fresh)
    assert not (cache.folder / "views.npy").exists()
    with caplog.at_level(logging.WARNING):
        for batch in fresh.train.batches(8, epoch=0, seed=0):
            assert torch.equal(cache.logits(batch), teacher(batch.x))
    assert [record.message for record in caplog.records] == [LIVE]  # said once
    assert len(cache.split_logits("select")) == len(fresh.select)
    ViewCache.open(tmp_path, teacher, fresh)  # the check works without views too
    data = make_data()
    served = ViewCache.open(tmp_path, teacher, data)
    batch = next(iter(data.rate.clean(4)))
    assert torch.equal(served.logits(batch), teacher(batch.x)) and served.live() is teacher
    alone = ViewCache.load(served.folder)
    with pytest.raises(SettingError, match="crops and flips among the cached views.*with its teacher"):
        alone.logits(batch)
    with pytest.raises(SettingError, match="for uncached images"):
        alone.live()


def test_splits_without_images(tmp_path: Path, teacher: Teacher) -> None:
    x = torch.randint(0, 256, (60, 3, 8, 8), dtype=torch.uint8)
    data = load_data((x, torch.arange(60) % 3), rate=0, select=0, views="all")
    for _ in range(2):
        assert ViewCache.open(tmp_path, teacher, data, epochs=1).split_logits("rate").shape == (0, 3)


@pytest.mark.parametrize("name", ["views.npy", "rate.npy"])
@pytest.mark.parametrize("epochs", [1, None])
def test_a_cache_that_is_not_the_teachers_is_refused(
    tmp_path: Path, data: Data, teacher: Teacher, name: str, epochs: int | None
) -> None:
    cache = ViewCache.open(tmp_path, teacher, data, epochs=epochs)
    stored = np.lib.format.open_memmap(cache.folder / name, mode="r+")
    stored[0] += np.where(
        stored[0] == 0, 0, 0.1 * (1 + abs(stored[0]))
    )  # of the first image; what is not there stays so
    stored.flush()
    with pytest.raises(SettingError, match=f"{name}.*computes now.*delete"):
        ViewCache.open(tmp_path, teacher, data, epochs=epochs)


def test_a_file_of_another_shape_or_none_is_damaged(tmp_path: Path, data: Data, teacher: Teacher) -> None:
    cache = ViewCache.open(tmp_path, teacher, data)
    (cache.folder / "views.npy").write_bytes(b"x")
    with pytest.raises(SettingError, match="views.npy.*undamaged.*delete"):
        ViewCache.load(cache.folder)


@pytest.mark.parametrize("change", ["images", "views", "kind", "flat"])
def test_an_array_of_another_shape_is_damaged(change: str, tmp_path: Path, data: Data, teacher: Teacher) -> None:
    cache = ViewCache.open(tmp_path, teacher, data)
    path = cache.folder / "views.npy"
    whole = np.load(path)
    other = {"images": whole[:-2], "views": whole[:, :-1], "kind": whole.astype(np.float32), "flat": whole.ravel()}
    np.save(path, other[change])
    for again in (lambda: ViewCache.load(cache.folder), lambda: ViewCache.open(tmp_path, teacher, data)):
        with pytest.raises(SettingError, match="views.npy.*undamaged.*delete"):
            again()


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
    assert not counting.seen and not list(tmp_path.iterdir())


def test_auto_augmentation_falls_back(tmp_path: Path, teacher: Teacher) -> None:
    data = make_data(augment="rand-m9-mstd0.5")
    cache = ViewCache.open(tmp_path, teacher, data)
    batches: Iterator[Any] = data.train.batches(8, epoch=0, seed=0)
    batch = next(batches)
    assert torch.equal(cache.logits(batch), teacher(batch.x))  # live
