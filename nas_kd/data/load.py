"""`load_data`: from a name, a folder, a tar or tensors to four splits."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas_kd.config.checks import check_views
from nas_kd.data.augment import Affine, AutoAugment
from nas_kd.data.dataset import Augment, Data, Split
from nas_kd.data.open_source import open_source
from nas_kd.data.pixels import LazyPixels, Part, Pixels, decode
from nas_kd.data.readable import CHOICES, readable
from nas_kd.data.source import Source
from nas_kd.data.split import HIGH, LOW, cut, draw
from nas_kd.data.views import AllViews, Views, ViewTable
from nas_kd.errors import SettingError, nearest

TEST_SHARE = 0.2
STATISTICS_LIMIT = 20_000  # images decoded for mean and std when the set does not fit into memory
Amount = float | int


def load_data(
    train: str | Path | tuple[Any, Any],
    *,
    test: str | Path | tuple[Any, Any] | None = None,
    rate: Amount = 0.05,
    select: Amount = 0.05,
    seed: int = 0,
    resolution: int | None = None,
    subset: int | None = None,
    views: int | str | None = 8,
    pad: int | None = None,
    flip: bool | None = None,
    augment: str | None = None,
    device: str = "cpu",
    memory_gib: float = 4.0,
    root: str | Path = "~/.cache/nas_kd",
    download: bool = False,
    train_split: str = "train",
    test_split: str = "validation",
    unreadable: str = "stop",
) -> Data:
    """Load a data set and split it into train, rate, select and test by a hash of the images' names.

    Every class is in every split. A share is a threshold on the hash, which images added later hardly ever move
    (`nas_kd.data.split.cut`); a count is met exactly.

    Args:
        train: ``"digits"`` (scikit-learn's 1,797 grey 8 x 8 digits), a folder of class folders, a .tar of class
            folders, ``"torch/cifar10"``, ``"hfds/NAME"``, or a pair (x (N, C, H, W) uint8, y (N,)).
        test: as ``train``, with the same classes; None holds out a fifth of train.
        rate: images that architectures are rated on, as a share of the training images (0 <= float < 1) or a count
            (int).
        select: images for the final selection, as a share or a count.
        seed: of the splits and of the views.
        resolution: pixels a side; None takes the images' own when they agree.
        subset: number of training images to use, divided over the classes.
        views: crop-and-flip views per image, whose teacher logits can be cached; ``"all"`` takes every one that pad and
            flip allow; 0 or None draws fresh ones in every epoch, without a cache.
        pad: pixels of padding before the crop; None is an eighth of the resolution.
        flip: mirror at random; None does, except for digits.
        augment: a policy of timm such as ``rand-m9-mstd0.5``, image by image, before a fresh crop and flip; no cache
            can serve it.
        device: where pixels are kept and batches made.
        memory_gib: sets up to this size, in GiB of pixels, are decoded once into memory, larger ones whenever an image
            is used (and their mean and std come from at most 20,000 images).
        root: folder of ``torch/`` and ``hfds/`` sets.
        download: whether a ``torch/`` set may be fetched; ``hfds/`` sets follow HF_HUB_OFFLINE.
        train_split, test_split: names of the splits of such sets.
        unreadable: ``"stop"`` refuses a set with an image that cannot be read; ``"skip"`` decodes every image once
            before anything else, and leaves such images out: ``Data.unreadable`` names them.

    Raises:
        SettingError: a setting is out of range, a file is missing or unreadable, or a class is too small.
    """
    _check_settings(rate, select, resolution, subset, pad, memory_gib, views)
    if unreadable not in CHOICES:
        raise SettingError("data.unreadable", unreadable, " or ".join(CHOICES), nearest(unreadable, CHOICES))
    kept = str(Path(root).expanduser())
    pool = open_source("data.train", train, False, train_split, kept, download)
    held = None
    if test is not None:
        held = open_source("data.test", test, True, test_split, kept, download)
        _check_classes(pool, held)
    lost: list[tuple[str, int]] = []
    if unreadable == "skip":
        pool, lost = readable(pool)
        if held is not None:
            held, more = readable(held)
            lost += more
    rows = _membership(pool, held, rate, select, seed, subset)

    used = np.sort(np.concatenate(list(rows.values())))
    parts = [Part(pool, used)] + ([Part(held, np.arange(len(held)))] if held else [])
    stores = decode(parts, resolution, memory_gib, device)
    size, _, channels = stores[0].shape
    places = {name: torch.from_numpy(np.searchsorted(used, at)) for name, at in rows.items()}
    mean, std = _mean_std(stores[0], places["train"])
    affine = Affine(mean, std)
    flip = train != "digits" if flip is None else flip
    pad = size // 8 if pad is None else pad
    if pad > size:
        raise SettingError("data.pad", pad, f"0 .. {size}, the resolution", "leave it out")
    auto = AutoAugment(augment, mean, size) if augment else None
    table = _views(views, len(rows["train"]), pad, flip, seed) if auto is None else None

    def split(name: str, source: Source, at: NDArray[np.int64], place: Tensor, store: Pixels) -> Split:
        labels = torch.from_numpy(source.labels[at])
        names = [source.names[i] for i in at]
        change = Augment(pad, flip, table, auto) if name == "train" else None
        return Split(name, store, place, labels, names, affine, device, change)

    splits = {name: split(name, pool, at, places[name], stores[0]) for name, at in rows.items()}
    if held is not None:
        every = np.arange(len(held))
        splits["test"] = split("test", held, every, torch.from_numpy(every), stores[1])
    return Data(
        train=splits["train"],
        rate=splits["rate"],
        select=splits["select"],
        test=splits["test"],
        classes=pool.classes,
        in_chans=channels,
        resolution=size,
        mean=mean,
        std=std,
        fingerprint=_fingerprint(pool.classes, splits, stores),
        unreadable=tuple(lost),
    )


def _views(views: int | str | None, n: int, pad: int, flip: bool, seed: int) -> Views | None:
    if isinstance(views, str):
        return AllViews(n, pad, flip, seed)
    return ViewTable(n, pad, flip, views, seed) if views else None


def _check_settings(
    rate: Amount,
    select: Amount,
    resolution: int | None,
    subset: int | None,
    pad: int | None,
    memory_gib: float,
    views: int | str | None,
) -> None:
    expected = "a share 0 <= share < 1, or a count as an integer of at least 0"
    for name, amount in (("data.rate", rate), ("data.select", select)):
        share = isinstance(amount, float)
        if isinstance(amount, bool) or not (0 <= amount < 1 if share else amount >= 0):
            raise SettingError(name, amount, expected, "use 0.05")
    if isinstance(rate, float) and isinstance(select, float) and rate + select >= 1:
        raise SettingError("data.rate + data.select", f"{rate} + {select}", "a sum below 1", "leave images to train on")
    for name, value, least in (
        ("data.resolution", resolution, 1),
        ("data.subset", subset, 1),
        ("data.pad", pad, 0),
    ):
        if value is not None and (isinstance(value, bool) or value < least):
            raise SettingError(name, value, f"an integer of at least {least}, or null", "leave it out")
    check_views(views)
    if not memory_gib >= 0:
        raise SettingError("data.memory_gib", memory_gib, "a number of at least 0", "use 4")


def _check_classes(pool: Source, held: Source) -> None:
    if pool.classes == held.classes:
        return
    lacking = [name for name in pool.classes if name not in held.classes]
    foreign = [name for name in held.classes if name not in pool.classes]
    found = "; ".join(
        f"{what} {', '.join(map(repr, names[:5]))}{' ...' if len(names) > 5 else ''}"
        for what, names in (("without", lacking), ("with the unknown", foreign))
        if names
    )
    raise SettingError(
        "data.test",
        f"{held.origin} {found or 'in another order'}",
        f"the {len(pool.classes)} classes of data.train, by the same names",
        "rename or add class folders",
    )


def _membership(
    pool: Source, held: Source | None, rate: Amount, select: Amount, seed: int, subset: int | None
) -> dict[str, NDArray[np.int64]]:
    """Choose the rows of the pool that make up train, rate, select and, without a test set, test."""
    used = ["train"] + [name for name, amount in (("rate", rate), ("select", select)) if amount]
    least = len(used)
    needed = least + (held is None)
    sizes = np.bincount(pool.labels, minlength=len(pool.classes))
    short = int(sizes.argmin())
    if sizes[short] < needed:
        splits = ", ".join([*used, "test"] if held is None else used)
        raise SettingError(
            "data.train",
            pool.origin,
            f"at least {needed} images in every class, one each for {splits}",
            f"class {pool.classes[short]!r} has {sizes[short]}: add images"
            + (", or give data.test" if held is None else ", or set data.rate=0"),
        )
    rows: dict[str, NDArray[np.int64]] = {}
    left = np.arange(len(pool))
    if held is None:
        codes = cut(pool.labels, draw(pool.names, seed, "test"), TEST_SHARE, 0, keep=least)
        rows["test"] = left[codes == LOW]
        left = left[codes != LOW]
    classes = len(pool.classes)
    if subset is not None:
        if not classes * least <= subset <= len(left):
            expected = f"{classes * least} ({least} a class) .. {len(left)}, the training images"
            raise SettingError("data.subset", subset, expected, "choose a number in this range, or leave it out")
        if subset < len(left):
            codes = cut(pool.labels[left], draw([pool.names[i] for i in left], seed, "subset"), subset, 0, 0, least)
            left = left[codes == LOW]
    labels = pool.labels[left]
    names = [pool.names[i] for i in left]
    for name, amount in (("data.rate", rate), ("data.select", select)):
        most = len(left) - classes * (least - 1)
        if isinstance(amount, int) and amount and not classes <= amount <= most:
            expected = f"0, or {classes} (one a class) .. {most} of the {len(left)} training images"
            raise SettingError(name, amount, expected, "choose a number in this range, or a share such as 0.05")
    codes = cut(labels, draw(names, seed, "split"), rate, select)
    rows["rate"] = left[codes == LOW]
    rows["select"] = left[codes == HIGH]
    rows["train"] = left[(codes != LOW) & (codes != HIGH)]
    return {name: rows[name] for name in ("train", "rate", "select", "test") if name in rows}


def _mean_std(store: Pixels, rows: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel from exact integer sums, to 4 digits."""
    if isinstance(store, LazyPixels) and len(rows) > STATISTICS_LIMIT:
        chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:STATISTICS_LIMIT]
        rows = rows[chosen]
    channels = store.shape[2]
    counts = torch.zeros(channels, 256, dtype=torch.int64)
    for some in torch.split(rows, 1024):
        pixels = store.fetch(some)
        for c in range(channels):
            counts[c] += torch.bincount(pixels[..., c].flatten(), minlength=256).cpu()
    mean = []
    std = []
    for row in counts.tolist():
        total = sum(row)
        first = sum(value * count for value, count in enumerate(row))
        second = sum(value * value * count for value, count in enumerate(row))
        variance = (total * second - first * first) / (total * total)  # exact until the division
        mean.append(round(first / total / 255, 4))
        std.append(max(round(math.sqrt(variance) / 255, 4), 1e-3))
    return tuple(mean), tuple(std)


def _fingerprint(classes: tuple[str, ...], splits: dict[str, Split], stores: list[Pixels]) -> str:
    """Hash names, labels, membership and pixels."""
    state = hashlib.sha256(repr((classes, [store.shape for store in stores])).encode())
    for name, split in splits.items():
        state.update("\n".join([name, *split.names, ""]).encode())
        state.update(split.labels.numpy().tobytes())
    for store in stores:
        state.update(store.digest())
    return state.hexdigest()
