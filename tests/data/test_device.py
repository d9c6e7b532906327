"""Images that live where they are used: equal batches, equal shares of processes, no copy a batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nas_kd.data import Data, load_data
from nas_kd.data.image_split import Split
from nas_kd.data.pixels import MemoryPixels

CASES = [{"views": 0}, {"views": 3}, {"augment": "rand-m5-n1", "views": 0}]


@pytest.fixture(params=CASES, ids=["fresh crops", "views", "timm"])
def data(request: pytest.FixtureRequest) -> Data:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (150, 3, 12, 12), dtype=torch.uint8, generator=generator)
    return load_data((x, torch.arange(150) % 3), rate=6, select=6, flip=True, **request.param)


def equal(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


@pytest.mark.parametrize("world", [2, 4])
def test_shares_of_processes_are_the_rows_of_the_whole_batch(data: Data, world: int) -> None:
    whole = list(data.train.batches(16, epoch=2, seed=3))
    shares = [list(data.train.batches(16, epoch=2, seed=3, rank=rank, world=world)) for rank in range(world)]
    for step, batch in enumerate(whole):
        for rank in range(world):
            share = shares[rank][step]
            assert len(share.y) == 16 // world
            assert equal(share, tuple(part[rank::world] for part in batch))


def test_parts_of_a_batch_are_its_images_in_order(data: Data) -> None:
    batch = next(iter(data.train.batches(12, epoch=0, seed=0)))
    parts = batch.parts(3)
    assert [len(part.y) for part in parts] == [4, 4, 4]
    assert equal(tuple(map(torch.cat, zip(*parts, strict=True))), batch)
    assert parts[1].x.is_contiguous(memory_format=torch.channels_last)
    assert parts[1].x.data_ptr() == batch.x[4:].data_ptr()  # no copy


class Copies(TorchDispatchMode):
    """Counts the copies from the CPU to another device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        inputs = [arg for arg in args if isinstance(arg, Tensor)]
        if isinstance(out, Tensor) and out.device.type != "cpu":
            self.count += any(arg.device.type == "cpu" and arg.ndim for arg in inputs)
        return out


@pytest.mark.parametrize("views", [0, 3])
def test_a_batch_copies_nothing_to_the_images_device(views: int) -> None:
    # the meta device stands for a GPU: it computes shapes only, and a copy to it is as visible
    x = torch.zeros(150, 3, 12, 12, dtype=torch.uint8)
    data = load_data((x, torch.arange(150) % 3), rate=6, select=6, flip=True, views=views)
    train = data.to("meta").train
    counts = []
    for size in (10, 50):
        with Copies() as copies:
            batches = list(train.batches(size, epoch=1, seed=0))
        assert {(batch.x.device.type, batch.y.device.type, batch.index.device.type) for batch in batches} == {
            ("meta", "meta", "cpu")
        }
        assert batches[0].x.shape == (size, 3, 12, 12)
        counts.append(copies.count)
    assert counts[0] == counts[1] > 0  # so many an epoch, however many batches it has
    with Copies() as copies:  # the count can tell: images on the CPU are copied batch by batch
        for batch in data.train.batches(10, epoch=1, seed=0):
            batch.to("meta")
    assert copies.count >= data.train.steps(10)


def test_a_split_moved_gives_the_same_batches(data: Data) -> None:
    train = data.train
    # its own rows alone, in their order, as they are after a move
    pixels = train._pixels.resident(train._rows, torch.device("cpu"))
    assert pixels is not None
    rows, names = torch.arange(len(train)), train.names
    moved = Split("train", pixels, rows, train.labels, names, train._affine, "cpu", train.augment)
    for a, b in zip(train.batches(16, epoch=1, seed=2), moved.batches(16, epoch=1, seed=2), strict=True):
        assert equal(a, b)
    for a, b in zip(train.clean(32, limit=64), moved.clean(32, limit=64), strict=True):
        assert equal(a, b)
    if train.views is not None:
        index, view = torch.arange(50), torch.arange(50) % len(train.views)
        assert equal(train.shown(index, view), moved.shown(index, view))


def test_what_is_there_or_does_not_fit_stays(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    assert data.train.to("cpu") is data.train
    assert data.to("cpu").train is data.train
    monkeypatch.setattr(MemoryPixels, "resident", lambda *_: None)
    assert data.train.to("meta") is data.train


def test_half_of_a_gpus_free_memory_stays_free(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = MemoryPixels(torch.zeros(10, 4, 4, 3, dtype=torch.uint8))  # 480 bytes
    moved: list[Any] = []
    monkeypatch.setattr(Tensor, "to", lambda self, device: moved.append(device) or self)
    for free, fits in ((959, False), (960, True)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 10**9))
        monkeypatch.setattr(pixels, "fetch", lambda rows: pixels._pixels[rows])
        found = pixels.resident(torch.arange(10), torch.device("cuda", 0))
        assert (found is not None) == fits
    assert moved == [torch.device("cuda", 0)]
