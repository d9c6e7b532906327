"""The view table against counting, and batched augmentation against a loop over images."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from nas_kd.data import AllViews, AutoAugment, ViewTable, crop_flip, load_data
from nas_kd.data.augment import Affine
from nas_kd.errors import SettingError


def joint(top: torch.Tensor, left: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
    return top + 1000 * left + 1_000_000 * mirrored


@pytest.mark.parametrize(
    ("pad", "flip", "k"), [(1, False, 8), (1, False, 9), (4, True, 8), (4, True, 162), (0, True, 2)]
)
def test_views_of_an_image_differ(pad: int, flip: bool, k: int) -> None:
    table, index = ViewTable(300, pad, flip, k), torch.arange(300)
    seen = torch.stack([joint(*table.params(index, v)) for v in range(k)])
    assert all(len(set(column)) == k for column in seen.T.tolist())
    top, left, mirrored = table.params(index, 0)
    assert int(min(top.min(), left.min())) >= 0 and int(max(top.max(), left.max())) <= 2 * pad
    assert flip or not mirrored.any()


def test_every_view_once_in_k_epochs_in_the_images_own_order() -> None:
    table, index = ViewTable(500, 4, True, 8), torch.arange(500)
    views = torch.stack([table.at(index, epoch) for epoch in range(8)])
    assert torch.equal(views.sort(dim=0).values, torch.arange(8)[:, None].expand(8, 500))
    assert torch.equal(table.at(index, 11), views[3])
    assert len({tuple(column) for column in views.T.tolist()}) > 450  # of 40,320 orders
    # each epoch shows each view number to about an eighth of the images: chi-square, 7 degrees, p = 1e-4
    counts = torch.stack([torch.bincount(row, minlength=8) for row in views]).double()
    assert float(((counts - 62.5) ** 2 / 62.5).sum(1).max()) < 29.9


def test_views_are_drawn_evenly() -> None:
    table = ViewTable(9000, 1, False, 8)
    index = torch.arange(9000)
    for view in (0, 3, 7):
        top, left, _ = table.params(index, view)
        counts = torch.bincount(top * 3 + left, minlength=9).double()
        assert float(((counts - 1000) ** 2 / 1000).sum()) < 31.8  # chi-square, 8 degrees, p = 1e-4


def test_a_longer_table_begins_with_the_shorter() -> None:
    short, long, other = (ViewTable(50, 2, True, k, seed) for k, seed in ((4, 0), (20, 0), (4, 1)))
    index = torch.arange(50)
    for view in range(4):
        for a, b in zip(short.params(index, view), long.params(index, view), strict=True):
            assert torch.equal(a, b)
    assert not torch.equal(short.params(index, 0)[0], other.params(index, 0)[0])
    assert short.key != long.key and len(long) == 20


@pytest.mark.parametrize(("pad", "flip", "count"), [(4, True, 162), (4, False, 81), (0, True, 2), (0, False, 1)])
def test_all_views_are_all_and_each_comes_once_in_their_number_of_epochs(pad: int, flip: bool, count: int) -> None:
    views, index = AllViews(40, pad, flip), torch.arange(40)
    assert len(views) == count and views.setting == "all"
    seen = torch.stack([views.at(index, epoch) for epoch in range(count)])
    assert torch.equal(seen.sort(dim=0).values, torch.arange(count)[:, None].expand(count, 40))
    assert torch.equal(views.at(index, count + 3), views.at(index, 3))
    shown = torch.stack([joint(*views.params(index, v)) for v in range(count)])
    assert len(set(shown[:, 0].tolist())) == count and bool((shown == shown[:, :1]).all())
    one = torch.tensor([7])
    assert torch.equal(views.at(one, 5 % count), seen[5 % count, 7:8])
    assert torch.equal(torch.stack(views.params(one, seen[0, 7:8])), torch.stack(views.params(one, int(seen[0, 7]))))


def test_all_views_come_evenly_and_without_memory() -> None:
    views, index = AllViews(16_200, 4, True), torch.arange(16_200)
    first, second = views.at(index, 11), views.at(index, 12)
    for epoch in (first, second):
        counts = torch.bincount(epoch, minlength=162).double()
        assert float(((counts - 100) ** 2 / 100).sum()) < 233.5  # chi-square, 161 degrees, p = 1e-4
    # from one epoch to the next a crop moves as two random ones of 0 .. 8 differ: by 80 / 27 on average
    moved = [
        (a - b).abs().double().mean()
        for a, b in zip(views.params(index, first), views.params(index, second), strict=True)
        if a.dtype == torch.int64
    ]
    assert all(abs(float(mean) - 80 / 27) < 0.3 for mean in moved)
    mirrored = views.params(index, first)[2] == views.params(index, second)[2]
    assert abs(float(mirrored.double().mean()) - 80 / 161) < 0.05
    assert not torch.equal(AllViews(50, 4, True, 1).at(index[:50], 0), AllViews(50, 4, True, 2).at(index[:50], 0))


@pytest.mark.parametrize("k", [10, -1])
def test_more_views_than_there_are(k: int) -> None:
    with pytest.raises(SettingError, match=r"data\.views") as caught:
        ViewTable(5, 1, False, k)
    assert "1 .. 9" in str(caught.value) and "data.pad" in str(caught.value)


@pytest.mark.parametrize("channels", [1, 3])
def test_crop_flip_equals_a_loop(channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    n, h, w, pad = 200, 9, 7, 2
    pixels = torch.randint(0, 256, (n, h, w, channels), generator=generator).to(torch.uint8)
    top, left = (torch.randint(0, 2 * pad + 1, (n,), generator=generator) for _ in "yx")
    flip = torch.rand(n, generator=generator) < 0.5
    expected = []
    for image, y, x, mirrored in zip(pixels.numpy(), top, left, flip, strict=True):
        padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))  # torchvision's RandomCrop: pad, then crop
        crop = padded[int(y) : int(y) + h, int(x) : int(x) + w]
        expected.append(crop[:, ::-1] if mirrored else crop)
    assert np.array_equal(crop_flip(pixels, top, left, flip, pad).numpy(), np.stack(expected))


def test_normalisation() -> None:
    pixels = torch.arange(2 * 4 * 5 * 3).to(torch.uint8).view(2, 4, 5, 3)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    x = Affine(mean, std)(pixels)
    expected = (pixels.double() / 255 - torch.tensor(mean)) / torch.tensor(std)
    assert x.shape == (2, 3, 4, 5) and x.dtype == torch.float32
    assert x.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(x.double(), expected.permute(0, 3, 1, 2), atol=1e-5, rtol=1e-5)


def test_auto_augment_is_drawn_by_image_and_leaves_the_generators_alone() -> None:
    pixels = torch.randint(0, 256, (6, 16, 16, 3)).to(torch.uint8)
    auto = AutoAugment("rand-m9-mstd0.5", (0.5, 0.5, 0.5), 16)
    index = torch.arange(6)
    random.seed(1)
    np.random.seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist()
    whole = auto(pixels, index, seed=0, epoch=2)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    assert torch.equal(auto(pixels[3:], index[3:], seed=0, epoch=2), whole[3:])
    assert not torch.equal(auto(pixels, index, seed=0, epoch=3), whole)
    assert not torch.equal(auto(pixels, index, seed=1, epoch=2), whole)


def test_auto_augment_in_a_data_set() -> None:
    data = load_data("digits", augment="rand-m5", subset=300)
    assert data.train.views is None
    batch = next(data.train.batches(32, epoch=0, seed=0))
    again = next(data.train.batches(32, epoch=0, seed=0))
    assert torch.equal(batch.x, again.x) and (batch.view == -1).all() and batch.x.shape == (32, 1, 8, 8)
    with pytest.raises(SettingError, match="view"):
        data.train.shown(torch.arange(3), torch.zeros(3).long())


@pytest.mark.parametrize("policy", ["randd", "rand-q7", "augmix-x1", "nonsense"])
def test_unknown_policy(policy: str) -> None:
    with pytest.raises(SettingError, match=r"data\.augment"):
        load_data("digits", augment=policy)
