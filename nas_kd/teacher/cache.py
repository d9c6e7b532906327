"""Teacher logits of every image in every view, computed once and read by every later training."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nas_kd.errors import SettingError
from nas_kd.runs.files import atomic_json
from nas_kd.runs.progress import Progress
from nas_kd.space.arch import Cost
from nas_kd.teacher.chunks import check_equal, view_logits
from nas_kd.teacher.held_out import PROBE, HeldOut
from nas_kd.teacher.store import (
    ViewStore,
    prepare,
    read_facts,
    same_data,
    store_bytes,
    store_key,
    store_path,
)
from nas_kd.teacher.targets import LiveSource, TargetSource

if TYPE_CHECKING:
    from nas_kd.data import Batch, Data, Views
    from nas_kd.runs.run import Run

_log = logging.getLogger(__name__)
FILE = "views"  # views.npy holds the array
STEP = 128  # images between two reports of progress, a multiple of every chunk


class ViewCache(TargetSource):
    """Stored teacher logits, fp16 for the views of the training images and fp32 for the held-out splits.

    Made by `open`, or by `load` in a process that has no teacher. A folder holds one sub-folder for each
    teacher, data set and set of views, which any number of runs and processes use at once. Missing
    entries are computed on first use, or ahead by `fill`; what is used is always the stored value.

    Args:
        folder: the sub-folder with cache.json.
        source: the teacher and the data that missing logits are computed from.
    """

    shared = True

    def __init__(self, folder: Path, source: tuple[LiveSource, Data] | None = None) -> None:
        self.folder = folder
        self.facts = read_facts(folder)
        writable = source is not None and not self.facts["complete"]
        self._store = ViewStore.open(folder, writable) if self.facts["views"] else None
        self._held_out = HeldOut(folder, source)
        self._source = source
        self._warned = False

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return ViewCache.load, (self.folder,)  # a worker maps the file; pickling would copy all of it

    @property
    def teacher(self) -> LiveSource | None:
        """The teacher it was opened with, which runs where the cache cannot serve; None after `load`."""
        return None if self._source is None else self._source[0]

    @property
    def cost(self) -> Cost | None:
        return None if self.teacher is None else self.teacher.cost

    @property
    def fingerprint(self) -> str:
        """The teacher's fingerprint: stored and live logits are those of one teacher."""
        return str(self.facts["key"]["teacher"])

    @classmethod
    def load(cls, folder: str | Path) -> ViewCache:
        """Open ``cache.folder`` without its teacher, as worker processes do; it then serves what is stored.

        Raises:
            SettingError: the folder holds no cache.
        """
        path = Path(folder)
        if not (path / "cache.json").is_file():
            raise SettingError("teacher cache", str(path), "a folder with cache.json", "give ViewCache.folder")
        return cls(path)

    @classmethod
    def open(
        cls,
        folder: str | Path,
        teacher: LiveSource,
        data: Data,
        *,
        epochs: int | None = None,
        progress: Progress | None = None,
    ) -> ViewCache:
        """Open a cache, compare it with the teacher, and compute the logits of this many epochs.

        The logits of the splits `rate` and `select` are stored afterwards; those of `test` are computed
        on first use. A data set without views gets a cache of the splits only.

        Args:
            folder: folder of caches, of one run or of several.
            teacher: the teacher, bound to the data.
            epochs: epochs whose views are computed now; 0: each on first use; None: all views.
            progress: a started progress of `todo` images, advanced by every batch.

        Raises:
            SettingError: the disk is full or read-only, the teacher's logits are no finite numbers, or the cache is not
                what this teacher computes.
        """
        key = store_key(teacher, data)
        images = len(data.train)
        views = 0 if data.train.views is None else len(data.train.views)
        hint = "free space, or set fewer data.views"
        made = prepare(folder, key, images, views, {FILE: (data.num_classes,)}, hint)
        cache = cls(made, (teacher, data))
        cache._probe()
        cache.fill(epochs, progress)
        for name in ("rate", "select"):
            cache._held_out.fill(name, progress)
        return cache

    @staticmethod
    def todo(folder: str | Path, teacher: LiveSource, data: Data, epochs: int | None = None) -> int:
        """Count the images that `open` would have to compute, for a progress bar."""
        path = store_path(folder, store_key(teacher, data))
        views = data.train.views
        splits = [getattr(data, s) for s in ("rate", "select") if not (path / f"{s}.npy").is_file()]
        held = sum(len(split) for split in splits)
        if views is None:
            return held
        if not (path / "cache.json").is_file():
            return held + _count(views, epochs) * len(data.train)
        return held + ViewCache(path).missing(views, epochs)

    def bind(self, data: Data, epochs: int = 0) -> ViewCache:
        """Check that the stored logits belong to a data set.

        Args:
            epochs: epochs of the training, whose logits must be there when there is no teacher.

        Raises:
            SettingError: it was made from another data set, normalisation or set of views, or lacks logits.
        """
        views = data.train.views
        # without views the teacher runs live, where there is one
        if other := same_data(self.facts["key"], data, ["views"] if views is None and self.teacher else []):
            expected = f"logits of these images; it was made with {other}"
            hint = "open one for them: ViewCache.open(folder, teacher, data)"
            raise SettingError("teacher cache", str(self.folder), expected, hint)
        if views is not None and self._source is None and (lacking := self.missing(views, epochs)):
            expected = f"a cache with the logits of {epochs} epochs ({lacking:,} are not there)"
            raise SettingError("teacher cache", str(self.folder), expected, _FILL)
        return self

    def prefill(self, data: Data, epochs: int, run: Run | None) -> None:
        """Compute the logits of this many epochs now, for processes that have no teacher."""
        self.bind(data, epochs)
        todo = 0 if data.train.views is None else self.missing(data.train.views, epochs)
        if todo:
            with Progress("teacher logits", todo, unit="images", run=run) as progress:
                self.fill(epochs, progress)

    def live(self) -> TargetSource:
        if self._source is None:
            expected = (
                "a cache opened with its teacher, for images in no cache (retrain.mixup, retrain.cutmix, unlabelled=)"
            )
            raise SettingError("teacher cache", str(self.folder), expected, "pass the teacher itself")
        return self._source[0]

    def missing(self, views: Views, epochs: int | None = None) -> int:
        """Count the missing logits of a training of this many epochs; None is all views."""
        return sum(len(index) for index, _ in self._gaps(views, epochs))

    def fill(self, epochs: int | None = None, progress: Progress | None = None) -> None:
        """Compute the logits of a training of this many epochs ahead of it; None is all views.

        Raises:
            SettingError: there is no teacher, its logits are no finite numbers, or the disk is full.
        """
        if self._store is None or self.facts["complete"]:
            return
        if self._source is None:
            raise SettingError("teacher cache", str(self.folder), "a cache opened with its teacher", _FILL)
        views = self._source[1].train.views
        assert views is not None
        for index, view in self._gaps(views, epochs):
            for some, shown in zip(index.split(STEP), view.split(STEP), strict=True):
                self._compute(some, shown)
                if progress is not None:
                    progress.advance(len(some))
        if _count(views, epochs) == len(views):
            self._store.flush()  # before cache.json records it
            self.facts["complete"] = True
            atomic_json(self.folder / "cache.json", self.facts)

    def logits(self, batch: Batch) -> Tensor:
        """Return the teacher's (B, C) float32 logits of a training batch; missing ones are computed and stored.

        The teacher runs live for images in no numbered view, with one warning.

        Raises:
            SettingError: logits are missing and there is no teacher to compute them.
        """
        if self._store is None or bool((batch.view < 0).any()):
            return self._live_logits(batch)
        (rows,), missing = self._store.read(batch.index.numpy(), batch.view.numpy())
        if missing.any():
            if self._source is None:
                expected = "a cache with the logits of all epochs of this training"
                raise SettingError("teacher cache", str(self.folder), expected, _FILL)
            which = torch.from_numpy(missing)
            # the images are fetched again: changes to those of the batch must not be stored
            self._compute(batch.index[which], batch.view[which])
            (rows,), _ = self._store.read(batch.index.numpy(), batch.view.numpy())
        found = torch.from_numpy(rows)
        device = batch.x.device
        if device.type == "cuda":
            found = found.pin_memory()  # from other memory the copy would wait for the device
        return found.to(device, non_blocking=True).float() + 0.0  # makes the store's -0 a 0 again

    def _live_logits(self, batch: Batch) -> Tensor:
        if self._source is None:
            expected = "crop and flip out of the cached views"
            raise SettingError("data.augment", "other views", expected, "open the cache with its teacher")
        if not self._warned:
            _log.warning("the teacher's cache cannot serve this augmentation: the teacher runs live instead")
            self._warned = True
        return self._source[0].logits(batch)

    def split_logits(self, name: str, data: Data | None = None) -> Tensor:
        """Return (N, C) float32 logits of ``rate``, ``select`` or ``test`` on the CPU, in the order of the split.

        Raises:
            SettingError: the split is unknown, or not stored in a cache opened without its teacher.
        """
        return self._held_out.logits(name)

    def _gaps(self, views: Views, epochs: int | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield image and view numbers, (M,) each, of what every epoch lacks."""
        if self._store is None or self.facts["complete"]:
            return
        index = torch.arange(self.facts["images"])
        for epoch in range(_count(views, epochs)):
            view = views.at(index, epoch)
            _, missing = self._store.read(index.numpy(), view.numpy())
            if missing.any():
                which = torch.from_numpy(missing)
                yield index[which], view[which]

    def _compute(self, index: Tensor, view: Tensor) -> None:
        assert self._store is not None
        assert self._source is not None
        rows = view_logits(*self._source, index, view, np.float16)
        self._store.write(index.numpy(), view.numpy(), [rows])

    def _probe(self) -> None:
        """Recompute a few stored logits: weights in a changed network, or a damaged file, must not go unseen."""
        assert self._source is not None
        teacher, data = self._source
        self._held_out.check(teacher, data)
        if self._store is None:
            return
        index = torch.linspace(0, self.facts["images"] - 1, PROBE).round().long().unique()
        stored = torch.from_numpy(self._store.stored(index.numpy()))  # (P, V)
        # of every image one of its stored views, at random
        draws = torch.rand(stored.shape, generator=torch.Generator().manual_seed(0)).masked_fill(~stored, -1.0)
        best, view = draws.max(dim=1)
        index = index[best >= 0]
        view = view[best >= 0]
        if len(index):
            (rows,), _ = self._store.read(index.numpy(), view.numpy())
            live = view_logits(teacher, data, index, view, np.float32)
            check_equal(self.folder / f"{FILE}.npy", rows.astype(np.float32), live)


def cache_bytes(data: Data) -> int:
    """Compute what a cache of a data set takes on the disk in bytes, without its header."""
    views = 0 if data.train.views is None else len(data.train.views)
    return store_bytes(len(data.train), views, {FILE: (data.num_classes,)})


_FILL = "fill it where the teacher is: cache.fill(epochs=...)"


def _count(views: Views, epochs: int | None) -> int:
    """Count the epochs that show different views: after them every image begins again."""
    return len(views) if epochs is None else min(epochs, len(views))
