"""A data set split into train, rate, select and test, iterated in batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nas_kd.data.augment import Affine, Augment, crop_flip
from nas_kd.data.batch import Batch
from nas_kd.data.config import Kind
from nas_kd.data.found import Found
from nas_kd.data.pixels import Pixels
from nas_kd.data.split import draw, stratified_order
from nas_kd.data.views import Views, count_views, decode_view
from nas_kd.errors import SettingError
from nas_kd.runtime.seeds import seed_for

if TYPE_CHECKING:
    import pandas as pd

    from nas_kd.data.tokenised import Tokenised


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

    def _shuffled(self, batch_size: int, epoch: int, seed: int) -> Tensor:
        """Return the order (N,) of an epoch's images."""
        return torch.randperm(len(self), generator=_generator(seed, "order", epoch))

    def _fetch(self, index: Tensor) -> Tensor:
        return self._pixels.fetch(self._rows[index.to(self._rows.device)])

    def _batch(self, pixels: Tensor, index: Tensor, view: Tensor | None = None) -> Batch:
        y = self._labels[index.to(self._labels.device)]
        return Batch(self._affine(pixels), y, index, torch.full_like(index, -1) if view is None else view)

    def _plan(self, order: Tensor, epoch: int, seed: int) -> _Plan:
        """Draw the views and crops of an epoch's images, in order."""
        view = torch.full_like(order, -1)
        crops = None
        if self.views is not None:
            view = self.views.at(order, epoch)
            crops = self.views.params(order, view)
        elif self.augment is not None:
            possible = count_views(self.augment.pad, self.augment.flip)
            fresh = torch.randint(possible, (len(self),), generator=_generator(seed, "crop", epoch))
            crops = decode_view(fresh[order], self.augment.pad)
        rows = self._rows[order.to(self._rows.device)]
        labels = self._labels[order.to(self._labels.device)]
        if crops is not None:
            top, left, flip = (part.to(self._labels.device) for part in crops)
            crops = top, left, flip
        return _Plan(order, view, rows, labels, crops)

    def _planned(self, cut: slice, plan: _Plan, epoch: int, seed: int) -> Batch:
        index = plan.index[cut]
        pixels = self._pixels.fetch(plan.rows[cut])
        if self.augment is not None and plan.crops is not None:
            if self.augment.auto is not None:
                pixels = self.augment.auto(pixels, index, seed, epoch)
            top, left, flip = plan.crops
            pixels = crop_flip(pixels, top[cut], left[cut], flip[cut], self.augment.pad)
        return Batch(self._affine(pixels), plan.labels[cut], index, plan.view[cut])


class _Plan(NamedTuple):
    """An epoch's images in order: numbers and views on the CPU, the rest on the images' device."""

    index: Tensor  # type: ignore[assignment]
    view: Tensor
    rows: Tensor
    labels: Tensor
    crops: tuple[Tensor, Tensor, Tensor] | None


@dataclass(frozen=True, eq=False)
class Data:
    """A data set in four splits.

    ``kind`` says what the labels of the splits are: "classes", (N,) int64 class numbers, named by ``classes``;
    "multilabel", (N, L) float32 of 0 and 1; or "regression", (N, L) float32. Of the latter two ``classes`` and
    ``label_names`` are the names of the L columns; of classes ``label_names`` is empty. ``mean`` and ``std`` are the
    train split's, one per channel in 0..1 units; ``fingerprint`` changes with any name, label, membership or pixel.
    ``unreadable`` lists name and class number (-1 where there are no classes) of the images that were skipped.
    ``found`` says what else was found and left out. Of texts ``tokens`` says what these are made of; they count as
    having one channel, and ``resolution`` is their length in tokens.
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
    unreadable: tuple[tuple[str, int], ...] = ()
    kind: Kind = "classes"
    balance: str = "none"
    found: Found = Found()
    tokens: Tokenised | None = None

    @property
    def num_classes(self) -> int:
        """The number of classes, or of label columns: of a network's outputs."""
        return len(self.classes)

    @property
    def many_classes(self) -> bool:
        """Whether labels are of three classes or more, so that standardised logits say something."""
        return self.kind == "classes" and self.num_classes > 2

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of the label columns; empty for classes."""
        return () if self.kind == "classes" else self.classes

    @property
    def augmentation(self) -> dict[str, int | bool | str | None]:
        """How training images are drawn and changed, where not plainly: settings that the fingerprint leaves out."""
        drawn: dict[str, int | bool | str | None] = {} if self.balance == "none" else {"data.balance": self.balance}
        return drawn | (self.train.augment.settings if self.train.augment else {})

    @property
    def splits(self) -> tuple[Split, Split, Split, Split]:
        """Train, rate, select and test."""
        return self.train, self.rate, self.select, self.test

    def to(self, device: torch.device | str) -> Data:
        """Return the data with the images of every split on a device; see `Split.to`."""
        train, rate, select, test = (split.to(device) for split in self.splits)
        return replace(self, train=train, rate=rate, select=select, test=test)

    def normalised(self, mean: Sequence[float], std: Sequence[float]) -> Data:
        """Return the data normalised with other statistics, such as those a pretrained network expects.

        Args:
            mean: one number per channel, in 0..1 units.
            std: the same.
        """
        if self.tokens is not None:  # tokens have no normalisation
            return self
        affine = Affine(tuple(mean), tuple(std))
        train, rate, select, test = (split.normalised(affine) for split in self.splits)
        mark = "" if (tuple(mean), tuple(std)) == (self.mean, self.std) else f" mean={list(mean)} std={list(std)}"
        return replace(
            self,
            train=train,
            rate=rate,
            select=select,
            test=test,
            mean=tuple(mean),
            std=tuple(std),
            fingerprint=self.fingerprint + mark,
        )

    def frame(self) -> pd.DataFrame:
        """List every image: columns name, label and split, the content of data.csv.

        The label is the class number; for multi-label and regression there is a column ``label_NAME`` of each. Skipped
        images have the split ``unreadable``.
        """
        import pandas as pd

        lost = len(self.unreadable)
        labels = np.concatenate([split.labels.numpy() for split in self.splits])  # (N,) or (N, L)
        if self.kind == "classes":
            columns = {"label": np.concatenate([labels, np.array([c for _, c in self.unreadable], dtype=np.int64)])}
        else:
            gaps = np.full((lost, labels.shape[1]), np.nan, dtype=np.float32)
            values = np.concatenate([labels, gaps])
            columns = {f"label_{name}": values[:, at] for at, name in enumerate(self.classes)}
        return pd.DataFrame(
            {
                "name": [n for split in self.splits for n in split.names] + [n for n, _ in self.unreadable],
                **columns,
                "split": [split.name for split in self.splits for _ in split.names] + ["unreadable"] * lost,
            }
        )


def fingerprint_of(classes: tuple[str, ...], kind: Kind, splits: Mapping[str, Split], stores: Sequence[Any]) -> str:
    """Hash names, labels, membership and content.

    Args:
        classes: names of classes or of columns of labels.
        kind: of the labels.
        splits: by name.
        stores: of pixels or tokens, each with a ``shape`` and a ``digest``.
    """
    state = hashlib.sha256(repr((classes, [store.shape for store in stores])).encode())
    if kind != "classes":
        state.update(kind.encode())
    for name, split in splits.items():
        state.update("\n".join([name, *split.names, ""]).encode())
        state.update(split.labels.numpy().tobytes())
    for store in stores:
        state.update(store.digest())
    return state.hexdigest()


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise SettingError("batch_size", batch_size, "an integer of at least 1", "use 64")


def _generator(*parts: int | str) -> torch.Generator:
    return torch.Generator().manual_seed(seed_for(*parts))
