"""`load_data`: four splits from a name, a folder, a tar or tensors."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas_kd.config.keywords import takes
from nas_kd.data.augment import Affine, AutoAugment
from nas_kd.data.config import DataConfig, DataSettings, Kind
from nas_kd.data.dataset import Augment, Data, Split
from nas_kd.data.open_source import open_source
from nas_kd.data.pixels import LazyPixels, Part, Pixels, decode
from nas_kd.data.readable import readable
from nas_kd.data.source import Source
from nas_kd.data.split import HIGHEST, LOWEST, cut, draw
from nas_kd.data.views import AllViews, Views, ViewTable
from nas_kd.errors import SettingError

if TYPE_CHECKING:
    from typing_extensions import Unpack

TEST_SHARE = 0.2
STATISTICS_LIMIT = 20_000  # images decoded for mean and std when the set does not fit into memory
Amount = float | int


@takes(DataConfig)
def load_data(
    train: str | Path | tuple[Any, Any] | DataConfig,
    config: DataConfig | None = None,
    *,
    test: str | Path | tuple[Any, Any] | None = None,
    device: str = "cpu",
    **settings: Unpack[DataSettings],
) -> Data:
    """Load a data set and split it into train, rate, select and test by a hash of the image names.

    Every class is in every split. A share is a threshold on the hash, so images added later hardly ever move others
    (`nas_kd.data.split.cut`); a count is met exactly.

    Args:
        train: ``"digits"`` (scikit-learn's 1,797 grey 8 x 8 digits), a folder of class folders, a .tar of class
            folders, ``"torch/cifar10"``, ``"hfds/NAME"``, or a pair (x (N, C, H, W) uint8, y (N,) class numbers or
            texts, or numbers (N,) or (N, L), see ``kind``); or the settings, which include it.
        config: the settings; keywords replace some of them.
        test: as ``train``, with the same classes; None holds out a fifth of train.
        device: where pixels are stored and batches are created.

    Returns:
        The data set.

    Raises:
        SettingError: a setting is out of range, a file is missing or unreadable, or a class is too small.
    """
    if isinstance(train, DataConfig):
        config = train
        train = config.train
    config = DataConfig.of(config, settings)
    test = config.test if test is None else test
    pool, held, skipped = _sources(train, test, config)
    rows = _membership(pool, held, config.rate, config.select, config.seed, config.subset)

    used = np.sort(np.concatenate(list(rows.values())))
    parts = [Part(pool, used)] + ([Part(held, np.arange(len(held)))] if held else [])
    stores = decode(parts, config.resolution, config.memory_gib, device)
    size, _, channels = stores[0].shape
    places = {name: torch.from_numpy(np.searchsorted(used, at)) for name, at in rows.items()}
    mean, std = _mean_std(stores[0], places["train"])
    affine = Affine(mean, std)
    flip = train != "digits" if config.flip is None else config.flip
    pad = size // 8 if config.pad is None else config.pad
    if pad > size:
        raise SettingError("data.pad", pad, f"0 .. {size}, the resolution", "omit it")
    auto = AutoAugment(config.augment, mean, size) if config.augment else None
    table = _views(config.views, len(rows["train"]), pad, flip, config.seed) if auto is None else None

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
        fingerprint=_fingerprint(pool.classes, pool.kind, splits, stores),
        unreadable=tuple(skipped),
        kind=pool.kind,
        balance=config.balance,
    )


def _views(views: int | str | None, n: int, pad: int, flip: bool, seed: int) -> Views | None:
    if isinstance(views, str):
        return AllViews(n, pad, flip, seed)
    return ViewTable(n, pad, flip, views, seed) if views else None


def _sources(
    train: str | Path | tuple[Any, Any], test: str | Path | tuple[Any, Any] | None, config: DataConfig
) -> tuple[Source, Source | None, list[tuple[str, int]]]:
    """Open the images and the test images, if any; also return the skipped images."""
    kept = str(Path(config.root).expanduser())
    pool = open_source("data.train", train, False, config.train_split, kept, config.download, config.kind)
    held = None
    if test is not None:
        held = open_source("data.test", test, True, config.test_split, kept, config.download, config.kind)
        _check_classes(pool, held)
    skipped: list[tuple[str, int]] = []
    if config.unreadable == "skip":
        pool, skipped = readable(pool)
        if held is not None:
            held, more = readable(held)
            skipped += more
    return pool, held, skipped


def _check_classes(pool: Source, held: Source) -> None:
    if pool.kind != held.kind:
        expected = f"{pool.kind}, as the labels of data.train"
        raise SettingError("data.test", f"{held.origin}: {held.kind}", expected, "set data.kind")
    if pool.classes == held.classes:
        return
    missing = [name for name in pool.classes if name not in held.classes]
    unknown = [name for name in held.classes if name not in pool.classes]
    found = "; ".join(
        f"{what} {', '.join(map(repr, names[:5]))}{' ...' if len(names) > 5 else ''}"
        for what, names in (("without", missing), ("with the unknown", unknown))
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
    """Choose the rows of the pool for train, rate, select and, without a test set, test."""
    strata = pool.labels if pool.kind == "classes" else np.zeros(len(pool), dtype=np.int64)
    used = ["train"] + [name for name, amount in (("rate", rate), ("select", select)) if amount]
    least = len(used)
    needed = least + (held is None)
    classes = len(pool.classes) if pool.kind == "classes" else 1
    sizes = np.bincount(strata, minlength=classes)
    short = int(sizes.argmin())
    if sizes[short] < needed:
        where = " in every class" if pool.kind == "classes" else ""
        holder = f"class {pool.classes[short]!r}" if pool.kind == "classes" else "it"
        splits = ", ".join([*used, "test"] if held is None else used)
        raise SettingError(
            "data.train",
            pool.origin,
            f"at least {needed} images{where}, one each for {splits}",
            f"{holder} has {sizes[short]}: add images"
            + (", or set data.test" if held is None else ", or set data.rate=0"),
        )
    rows: dict[str, NDArray[np.int64]] = {}
    left = np.arange(len(pool))
    if held is None:
        codes = cut(strata, draw(pool.names, seed, "test"), TEST_SHARE, 0, keep=least)
        rows["test"] = left[codes == LOWEST]
        left = left[codes != LOWEST]
    if subset is not None:
        if not classes * least <= subset <= len(left):
            expected = f"{classes * least} ({least} per class) .. {len(left)}, the training images"
            raise SettingError("data.subset", subset, expected, "choose a number in this range, or omit it")
        if subset < len(left):
            codes = cut(strata[left], draw([pool.names[i] for i in left], seed, "subset"), subset, 0, 0, least)
            left = left[codes == LOWEST]
    labels = strata[left]
    names = [pool.names[i] for i in left]
    for name, amount in (("data.rate", rate), ("data.select", select)):
        most = len(left) - classes * (least - 1)
        if isinstance(amount, int) and amount and not classes <= amount <= most:
            expected = f"0, or {classes} (one per class) .. {most} of the {len(left)} training images"
            raise SettingError(name, amount, expected, "choose a number in this range, or a share such as 0.05")
    codes = cut(labels, draw(names, seed, "split"), rate, select)
    rows["rate"] = left[codes == LOWEST]
    rows["select"] = left[codes == HIGHEST]
    rows["train"] = left[(codes != LOWEST) & (codes != HIGHEST)]
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


def _fingerprint(classes: tuple[str, ...], kind: Kind, splits: dict[str, Split], stores: list[Pixels]) -> str:
    """Hash names, labels, membership and pixels."""
    state = hashlib.sha256(repr((classes, [store.shape for store in stores])).encode())
    if kind != "classes":
        state.update(kind.encode())
    for name, split in splits.items():
        state.update("\n".join([name, *split.names, ""]).encode())
        state.update(split.labels.numpy().tobytes())
    for store in stores:
        state.update(store.digest())
    return state.hexdigest()
