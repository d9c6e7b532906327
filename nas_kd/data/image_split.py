"""Some images of a data set, iterated in batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nas_kd.data.augment import Affine, Augment, crop_flip
from nas_kd.data.batch import Batch
from nas_kd.data.pixels import Pixels
from nas_kd.data.split import draw, stratified_order
from nas_kd.data.views import Views, count_views, decode_view
from nas_kd.errors import SettingError
from nas_kd.runtime.seeds import seed_for


class Split:
    """Some images of a data set.

    Args:
        name: train, rate, select or test.
        rows: (N,) rows of the images in ``pixels``.
        labels: (N,) int64 class numbers; for multi-label and regression (N, L) float32.
        device: device of the labels.
        augment: the augmentation of `batches`; None for none.
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
        self.name = name
        self.names = names
        self.labels = labels
        self.augment = augment
        self._pixels = pixels
        self._rows = rows.to(pixels.place)
        self._affine = affine.to(device)
        self._labels = labels.to(device)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Split({self.name}: {len(self):,} images)"

    def spoken(self, sentence: str) -> str:
        """Return a sentence that is written of images, with what these are in their place."""
        return sentence

    def to(self, device: torch.device | str) -> Split:
        """Return the split with its images on a device, or itself if they are not decoded or do not fit."""
        target = torch.empty(0, device=device).device  # resolves "cuda" to "cuda:0"
        pixels = None if self._pixels.place == target else self._pixels.resident(self._rows, target)
        if pixels is None:
            return self
        rows = torch.arange(len(self))
        return Split(self.name, pixels, rows, self.labels, self.names, self._affine, str(target), self.augment)

    def normalised(self, affine: Affine) -> Split:
        """Return the split with another normalisation."""
        device = str(self._labels.device)
        return Split(self.name, self._pixels, self._rows, self.labels, self.names, affine, device, self.augment)

    @property
    def views(self) -> Views | None:
        """The numbered views, whose logits can be cached; None without augmentation or with fresh crops."""
        return self.augment.views if self.augment else None

    def steps(self, batch_size: int, drop_last: bool = True) -> int:
        """Return the number of batches per epoch.

        Args:
            drop_last: drop an incomplete last batch; a split smaller than one batch still has one.
        """
        _check_batch_size(batch_size)
        whole, rest = divmod(len(self), batch_size)
        return whole + bool(rest and (not drop_last or not whole))

    def batches(
        self,
        batch_size: int,
        *,
        epoch: int,
        seed: int,
        drop_last: bool = True,
        rank: int = 0,
        world: int = 1,
        order: Tensor | None = None,
        first: int = 0,
    ) -> Iterator[Batch]:
        """Iterate over the split once, shuffled and augmented, depending only on seed and epoch.

        The augmentation of an image depends neither on the batch size nor on the number of processes. The draws of an
        epoch are moved to the images' device together, so that a batch on a GPU needs no copy.

        Args:
            batch_size: images per batch, of all processes together.
            epoch: the epoch, from 0.
            drop_last: see `steps`.
            rank: rank of this process; it gets the images ``rank, rank + world, ...`` of every batch.
            world: number of processes.
            order: image numbers, batch by batch, instead of a random permutation.
            first: the first step, from 0.
        """
        steps = self.steps(batch_size, drop_last) if order is None else len(order) // batch_size
        if order is None:
            order = self._shuffled(batch_size, epoch, seed)
        plan = self._plan(order, epoch, seed)
        for step in range(first, steps):
            cut = slice(step * batch_size + rank, (step + 1) * batch_size, world)
            yield self._planned(cut, plan, epoch, seed)

    def clean(self, batch_size: int, *, limit: int | None = None) -> Iterator[Batch]:
        """Iterate over the split without augmentation; views are -1.

        Args:
            batch_size: images per batch; the last may be smaller.
            limit: stop after this many images, in a fixed order whose prefixes are all class-stratified;
                None iterates over all in the order of the split.
        """
        _check_batch_size(batch_size)
        order = torch.arange(len(self))
        if limit is not None:
            if limit < 1:
                raise SettingError("limit", limit, "an integer of at least 1, or None for all", "omit it")
            draws = draw(self.names, "limit")
            strata = self.labels.numpy() if self.labels.ndim == 1 else np.zeros(len(self), dtype=np.int64)
            order = torch.from_numpy(stratified_order(strata, draws)[:limit])
        for index in torch.split(order, batch_size):
            yield self._batch(self._fetch(index), index)

    def shown(self, index: Tensor, view: Tensor) -> Batch:
        """Return images in given views, as `batches` yields them.

        Args:
            index: (B,) image numbers.
            view: (B,) view numbers, 0 .. V-1.

        Raises:
            SettingError: the split has no views, or fewer.
        """
        count = len(self.views) if self.views else 0
        if self.views is None or not 0 <= int(view.min()) <= int(view.max()) < count:
            found = f"{int(view.min())} .. {int(view.max())}"
            raise SettingError("view", found, f"0 .. {count - 1}" if count else "none: no views", "set data.views")
        crops = self.views.params(index, view)
        return self._batch(crop_flip(self._fetch(index), *crops, self.views.pad), index, view)

    def raw(self, index: Tensor) -> Any:
        """Return images as they were decoded: (B, H, W, C) bytes; of texts their tokens.

        Args:
            index: (B,) image numbers.
        """
        return self._fetch(index)

    def _shuffled(self, batch_size: int, epoch: int, seed: int) -> Tensor:
        """Return the order (N,) of an epoch's images."""
        return torch.randperm(len(self), generator=generator_of(seed, "order", epoch))

    def _fetch(self, index: Tensor) -> Tensor:
        return self._pixels.fetch(self._rows[index.to(self._rows.device)])

    def _batch(self, pixels: Tensor, index: Tensor, view: Tensor | None = None) -> Batch:
        y = self._labels[index.to(self._labels.device)]
        return Batch(self._affine(pixels), y, index, torch.full_like(index, -1) if view is None else view)

    def _plan(self, order: Tensor, epoch: int, seed: int) -> EpochPlan:
        """Draw the views and crops of an epoch's images, in order."""
        view = torch.full_like(order, -1)
        crops = None
        if self.views is not None:
            view = self.views.at(order, epoch)
            crops = self.views.params(order, view)
        elif self.augment is not None:
            possible = count_views(self.augment.pad, self.augment.flip)
            fresh = torch.randint(possible, (len(self),), generator=generator_of(seed, "crop", epoch))
            crops = decode_view(fresh[order], self.augment.pad)
        rows = self._rows[order.to(self._rows.device)]
        labels = self._labels[order.to(self._labels.device)]
        if crops is not None:
            top, left, flip = (part.to(self._labels.device) for part in crops)
            crops = top, left, flip
        return EpochPlan(order, view, rows, labels, crops)

    def _planned(self, cut: slice, plan: EpochPlan, epoch: int, seed: int) -> Batch:
        index = plan.index[cut]
        pixels = self._pixels.fetch(plan.rows[cut])
        if self.augment is not None and plan.crops is not None:
            if self.augment.auto is not None:
                pixels = self.augment.auto(pixels, index, seed, epoch)
            top, left, flip = plan.crops
            pixels = crop_flip(pixels, top[cut], left[cut], flip[cut], self.augment.pad)
        return Batch(self._affine(pixels), plan.labels[cut], index, plan.view[cut])


class EpochPlan(NamedTuple):
    """An epoch's images in order: numbers and views on the CPU, the rest on the images' device."""

    index: Tensor  # type: ignore[assignment]
    view: Tensor
    rows: Tensor
    labels: Tensor
    crops: tuple[Tensor, Tensor, Tensor] | None


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise SettingError("batch_size", batch_size, "an integer of at least 1", "use 64")


def generator_of(*parts: int | str) -> torch.Generator:
    """Return a generator whose draws depend on a seed, a purpose and an epoch."""
    return torch.Generator().manual_seed(seed_for(*parts))
