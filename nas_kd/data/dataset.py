"""A data set cut into train, rate, select and test, handed out in batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nas_kd.data.augment import Affine, AutoAugment, crop_flip
from nas_kd.data.pixels import Pixels
from nas_kd.data.split import draw, stratified_order
from nas_kd.data.views import ViewTable, decode_view
from nas_kd.errors import SettingError
from nas_kd.runtime import seed_for

if TYPE_CHECKING:
    import pandas as pd


class Batch(NamedTuple):
    """Images ready for a network.

    ``x`` (B, C, H, W) float32, normalised by the data's mean and std, channels_last; ``y`` (B,) int64 class
    numbers; both on the data's device. ``index`` (B,) int64, the image's number in its split; ``view`` (B,)
    int64, the view it is shown in, or -1 when it is none of the cached ones; both always on the CPU.
    """

    x: Tensor
    y: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody asks of a batch
    view: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch with its images and labels on a device."""
        return self._replace(x=self.x.to(device, non_blocking=True), y=self.y.to(device, non_blocking=True))


@dataclass(frozen=True, eq=False)
class Augment:
    """How training images are changed.

    Args:
        pad: zero pixels added on each side before the crop.
        flip: whether to mirror at random.
        views: the finite views that crop and flip come from; None draws them anew in every epoch.
        auto: timm's automatic augmentation, before crop and flip; then there are no views.
    """

    pad: int
    flip: bool
    views: ViewTable | None
    auto: AutoAugment | None

    @property
    def settings(self) -> dict[str, int | bool | str | None]:
        """The settings it comes from, by the names that users write."""
        return {
            "data.pad": self.pad, "data.flip": self.flip, "data.views": len(self.views) if self.views else 0,
            "data.augment": self.auto.policy if self.auto else None,
        }  # fmt: skip


class Split:
    """Some images of a data set.

    Args:
        name: train, rate, select or test.
        pixels: a store that holds the images.
        rows: (N,) where in the store.
        labels: (N,) int64 class numbers.
        names: image names.
        affine: the normalisation.
        device: where labels are wanted.
        augment: how `batches` changes the images; None leaves them as they are.
    """

    def __init__(
        self,
        name: str,
        pixels: Pixels,
        rows: Tensor,
        labels: Tensor,
        names: list[str],
        affine: Affine,
        device: str = "cpu",
        augment: Augment | None = None,
    ) -> None:
        self.name, self.names, self.labels, self.augment = name, names, labels, augment
        self._pixels, self._rows, self._affine = pixels, rows, affine
        self._labels = labels.to(device)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Split({self.name}: {len(self):,} images)"

    @property
    def views(self) -> ViewTable | None:
        """The table of cached views, or None when the images are shown unchanged or in fresh crops."""
        return self.augment.views if self.augment else None

    def steps(self, batch_size: int, drop_last: bool = True) -> int:
        """Count the batches of an epoch.

        Args:
            batch_size: images a batch.
            drop_last: leave out a last batch that is smaller; a split smaller than one batch is one batch.

        Returns:
            The number of batches.
        """
        _check_batch_size(batch_size)
        whole, rest = divmod(len(self), batch_size)
        return whole + bool(rest and (not drop_last or not whole))

    def batches(self, batch_size: int, *, epoch: int, seed: int, drop_last: bool = True) -> Iterator[Batch]:
        """Go through the split once, shuffled and augmented; a function of seed and epoch alone.

        Args:
            batch_size: images a batch.
            epoch: the epoch, from 0.
            seed: seed of the run.
            drop_last: see `steps`.

        Returns:
            The batches.
        """
        steps = self.steps(batch_size, drop_last)
        order = torch.randperm(len(self), generator=_generator(seed, "order", epoch))
        fresh = self._fresh(seed, epoch)
        for step in range(steps):
            index = order[step * batch_size : (step + 1) * batch_size]
            yield self._augmented(index, epoch, seed, fresh)

    def clean(self, batch_size: int, *, limit: int | None = None) -> Iterator[Batch]:
        """Go through the split unchanged; views are -1.

        Args:
            batch_size: images a batch; the last may be smaller.
            limit: stop after so many images of a fixed order in which every beginning holds the classes in
                proportion; None goes through all in the order of the split.

        Returns:
            The batches.
        """
        _check_batch_size(batch_size)
        order = torch.arange(len(self))
        if limit is not None:
            if limit < 1:
                raise SettingError(
                    "limit", limit, "an integer of at least 1, or null for all", "leave it out"
                )
            draws = draw(self.names, "limit")
            order = torch.from_numpy(stratified_order(self.labels.numpy(), draws)[:limit])
        for index in torch.split(order, batch_size):
            yield self._batch(self._pixels.fetch(self._rows[index]), index)

    def view_batches(self, batch_size: int, view: int) -> Iterator[Batch]:
        """Go through the split in order, every image in the same number of its own views: to fill a cache.

        Args:
            batch_size: images a batch; the last may be smaller.
            view: 0 .. K-1.

        Returns:
            The batches.

        Raises:
            SettingError: the split has no views, or fewer.
        """
        _check_batch_size(batch_size)
        count = len(self.views) if self.views else 0
        if not 0 <= view < count:
            raise SettingError(
                "view", view, f"0 .. {count - 1}" if count else "none: no views", "set data.views"
            )
        for index in torch.split(torch.arange(len(self)), batch_size):
            yield self._viewed(index, torch.full_like(index, view))

    def _batch(self, pixels: Tensor, index: Tensor, view: Tensor | None = None) -> Batch:
        y = self._labels[index.to(self._labels.device)]
        return Batch(self._affine(pixels), y, index, torch.full_like(index, -1) if view is None else view)

    def _viewed(self, index: Tensor, view: Tensor) -> Batch:
        assert self.views is not None
        pixels = self._pixels.fetch(self._rows[index])
        return self._batch(crop_flip(pixels, *self.views.params(index, view), self.views.pad), index, view)

    def _fresh(self, seed: int, epoch: int) -> Tensor | None:
        """Draw this epoch's crops of all images, so that they do not depend on the batch size."""
        if self.augment is None or self.augment.views is not None:
            return None
        possible = (2 * self.augment.pad + 1) ** 2 * (1 + self.augment.flip)
        return torch.randint(possible, (len(self),), generator=_generator(seed, "crop", epoch))

    def _augmented(self, index: Tensor, epoch: int, seed: int, fresh: Tensor | None) -> Batch:
        if self.views is not None:
            return self._viewed(index, self.views.at(index, epoch))
        pixels = self._pixels.fetch(self._rows[index])
        if self.augment is not None and fresh is not None:
            if self.augment.auto is not None:
                pixels = self.augment.auto(pixels, index, seed, epoch)
            pixels = crop_flip(pixels, *decode_view(fresh[index], self.augment.pad), self.augment.pad)
        return self._batch(pixels, index)


@dataclass(frozen=True, eq=False)
class Data:
    """A data set in four splits.

    ``classes`` are the class names; ``mean`` and ``std`` are the train split's, one a channel in 0..1 units;
    ``fingerprint`` changes with any name, label, membership or pixel.
    """

    train: Split
    rate: Split
    select: Split
    test: Split
    classes: tuple[str, ...]
    in_chans: int
    resolution: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.classes)

    @property
    def augmentation(self) -> dict[str, int | bool | str | None]:
        """How training images are changed, which the fingerprint does not cover, by the settings' names."""
        return self.train.augment.settings if self.train.augment else {}

    @property
    def splits(self) -> tuple[Split, Split, Split, Split]:
        """Train, rate, select and test."""
        return self.train, self.rate, self.select, self.test

    def frame(self) -> pd.DataFrame:
        """List every image: columns name, label (class number) and split, the content of data.csv."""
        import pandas as pd

        return pd.DataFrame(
            {
                "name": [name for split in self.splits for name in split.names],
                "label": np.concatenate([split.labels.numpy() for split in self.splits]),
                "split": [split.name for split in self.splits for _ in split.names],
            }
        )


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise SettingError("batch_size", batch_size, "an integer of at least 1", "use 64")


def _generator(*parts: int | str) -> torch.Generator:
    return torch.Generator().manual_seed(seed_for(*parts))
