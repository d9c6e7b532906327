"""`load_data`: four splits from a name, a folder, a tar, a table or tensors."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nas_kd.config.keywords import takes
from nas_kd.config.kinds import checked
from nas_kd.config.nouns import spoken_errors
from nas_kd.data.augment import Affine, Augment, AutoAugment
from nas_kd.data.config import DataConfig, DataSettings
from nas_kd.data.dataset import Data, fingerprint_of
from nas_kd.data.fileless import Arrays
from nas_kd.data.image import Decoder
from nas_kd.data.image_split import Split
from nas_kd.data.open_source import given_apart
from nas_kd.data.pixels import LazyPixels, Part, Pixels, decode
from nas_kd.data.placed import Members
from nas_kd.data.readable import readable
from nas_kd.data.views import AllViews, Views, ViewTable
from nas_kd.errors import SettingError

if TYPE_CHECKING:
    from typing_extensions import Unpack

STATISTICS_LIMIT = 20_000  # images decoded for mean and std when the set does not fit into memory


@takes(DataConfig)
@checked
def load_data(
    train: str | Path | Arrays | DataConfig,
    config: DataConfig | None = None,
    *,
    test: str | Path | Arrays | None = None,
    device: str = "cpu",
    **settings: Unpack[DataSettings],
) -> Data:
    """Load a data set and split it into train, rate, select and test by a hash of the image names.

    Every class is in every split. A share is a threshold on the hash, so images added later hardly ever move others
    (`nas_kd.data.split.cut`); a count is met exactly.

    Args:
        train: ``"digits"`` (scikit-learn's 1,797 grey 8 x 8 digits), a folder of class folders or of tars, a .tar of
            class folders, a .csv or .parquet of images and labels, ``"torch/cifar10"``, ``"hfds/NAME"``,
            ``"wds/FOLDER"`` of WebDataset's samples, or a pair
            (x (N, C, H, W) uint8, y (N,) class numbers or texts, or numbers (N,) or (N, L), see ``kind``); or the
            settings, which include it. With ``tokenizer`` a .csv, .jsonl, .parquet or ``"hfds/NAME"`` of texts.
        config: the settings; keywords replace some of them.
        test: as ``train``, with the same classes; None takes what train has of its own, else holds out a fifth of it.
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
    if config.tokenizer is not None:
        from nas_kd.data.texts import load_texts  # late: images need no tokenizer

        with spoken_errors(True):
            return load_texts(_table_of(train), config, None if test is None else _table_of(test), device)
    config.refuse_texts()
    decoder = Decoder(config.resolution, config.ground)
    sources, found = given_apart(train, config.test if test is None else test, config)
    skipped: list[tuple[str, int]] = []
    if config.unreadable == "skip":
        for name in sources:
            sources[name], lost = readable(sources[name], decoder)
            skipped += lost
    pool = sources["train"]
    members = Members(sources, config)
    parts = [Part(sources[home], rows) for home, rows in members.used.items()]
    decoded, seen = decode(parts, decoder, config.memory_gib, device)
    stores = dict(zip(members.used, decoded, strict=True))
    places = members.placed({home: store.keys() for home, store in stores.items()})

    size, _, channels = decoded[0].shape
    mean, std = _mean_std(decoded[0], torch.from_numpy(places["train"].at))
    affine = Affine(mean, std)
    flip = train != "digits" if config.flip is None else config.flip
    pad = size // 8 if config.pad is None else config.pad
    if pad > size:
        raise SettingError("data.pad", pad, f"0 .. {size}, the resolution", "omit it")
    auto = AutoAugment(config.augment, mean, size) if config.augment else None
    table = _views(config.views, len(places["train"].at), pad, flip, config.seed) if auto is None else None
    change = Augment(pad, flip, table, auto)

    splits = {
        name: Split(
            name,
            stores[place.home],
            torch.from_numpy(place.at),
            torch.from_numpy(place.labels),
            place.names,
            affine,
            device,
            change if name == "train" else None,
        )
        for name, place in places.items()
    }
    equal = members.check_equal(places)
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
        fingerprint=fingerprint_of(pool.classes, pool.kind, splits, decoded),
        unreadable=tuple(skipped),
        kind=pool.kind,
        balance=config.balance,
        found=replace(
            found,
            sizes=tuple(seen.sizes.most_common()),
            modes=tuple(seen.modes.most_common()),
            traits=tuple(seen.traits.most_common()),
            equal=equal,
        ),
    )


def _table_of(given: str | Path | Arrays) -> str | Path:
    if isinstance(given, tuple):
        raise SettingError("data.train", "tensors", "a table of texts with data.tokenizer", "save it as a .csv")
    return given


def _views(views: int | str | None, n: int, pad: int, flip: bool, seed: int) -> Views | None:
    if isinstance(views, str):
        return AllViews(n, pad, flip, seed)
    return ViewTable(n, pad, flip, views, seed) if views else None


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
