"""Teacher logits of every image in every view, computed once and reused by every later training."""

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
from nas_kd.runs.log import timed
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
STEP = 128  # images between progress reports, a multiple of every chunk size


class ViewCache(TargetSource):
    """Stored teacher logits, fp16 for the views of the training images and fp32 for the held-out splits.

    Created by `open`, or by `load` in a process that has no teacher. A folder holds one sub-folder for each
    teacher, data set and set of views, which any number of runs and processes can share. Missing
    entries are computed on first use, or in advance by `fill`; always the stored value is used.

    Args:
        folder: the sub-folder with cache.json.
        source: the teacher and the data to compute missing logits from.
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
        return ViewCache.load, (self.folder,)  # workers map the file; pickling would copy it

    @property
    def teacher(self) -> LiveSource | None:
        """The teacher it was opened with, which computes what is not cached; None after `load`."""
        return None if self._source is None else self._source[0]

    @property
    def cost(self) -> Cost | None:
        return None if self.teacher is None else self.teacher.cost

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the teacher."""
        return str(self.facts["key"]["teacher"])

    @classmethod
    def load(cls, folder: str | Path) -> ViewCache:
        """Open ``cache.folder`` without its teacher, as worker processes do; only stored logits are then available.

        Raises:
            SettingError: the folder holds no cache.
        """
        path = Path(folder)
        if not (path / "cache.json").is_file():
            raise SettingError("teacher cache", str(path), "a folder with cache.json", "pass ViewCache.folder")
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
        """Open a cache, verify it against the teacher, and compute the logits of this many epochs.

        The logits of the splits `rate` and `select` are then stored too; those of `test` are computed
        on first use. Without views, only the splits are cached.

        Args:
            folder: folder of caches, of one or several runs.
            teacher: the teacher, bound to the data.
            epochs: epochs whose views are computed now; 0 computes each on first use; None all views.
            progress: a progress of `todo` images, advanced by every batch.

        Raises:
            SettingError: the disk is full or read-only, the teacher's logits are not finite, or the cache differs from
                what this teacher computes.
        """
        key = store_key(teacher, data)
        images = len(data.train)
        views = 0 if data.train.views is None else len(data.train.views)
        hint = "free space, or reduce data.views"
        made = prepare(folder, key, images, views, {FILE: (data.num_classes,)}, hint)
        cache = cls(made, (teacher, data))
        cache._probe()
        cache.fill(epochs, progress)
        for name in ("rate", "select"):
            cache._held_out.fill(name, progress)
        return cache

    @staticmethod
    def todo(folder: str | Path, teacher: LiveSource, data: Data, epochs: int | None = None) -> int:
        """Return the number of images that `open` has to compute."""
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
            epochs: epochs of the training, whose logits must be stored if there is no teacher.

        Raises:
            SettingError: it belongs to another data set, normalisation or set of views, or lacks logits.
        """
        views = data.train.views
        # without views the teacher runs live, if there is one
        if other := same_data(self.facts["key"], data, ["views"] if views is None and self.teacher else []):
            expected = data.spoken(f"logits of these images; it was made with {other}")
            hint = "open another cache: ViewCache.open(folder, teacher, data)"
            raise SettingError("teacher cache", str(self.folder), expected, hint)
        if views is not None and self._source is None and (absent := self.missing(views, epochs)):
            expected = f"a cache with the logits of {epochs} epochs ({absent:,} are missing)"
            raise SettingError("teacher cache", str(self.folder), expected, _FILL)
        return self

    def prefill(self, data: Data, epochs: int, run: Run | None) -> None:
        """Compute the logits of this many epochs now, for processes that have no teacher."""
        self.bind(data, epochs)
        todo = 0 if data.train.views is None else self.missing(data.train.views, epochs)
        if todo:
            with (
                timed(run, "teacher", "answers"),
                Progress("teacher logits", todo, unit=data.spoken("images"), run=run) as progress,
            ):
                self.fill(epochs, progress)

    def live(self) -> TargetSource:
        if self._source is None:
            expected = "a cache opened with its teacher, for uncached images (retrain.mixup, cutmix, unlabelled=)"
            raise SettingError("teacher cache", str(self.folder), expected, "pass the teacher itself")
        return self._source[0]

    def missing(self, views: Views, epochs: int | None = None) -> int:
        """Return the number of missing logits for a training of this many epochs; None counts all views."""
        return sum(len(index) for index, _ in self._gaps(views, epochs))

    def fill(self, epochs: int | None = None, progress: Progress | None = None) -> None:
        """Compute the logits for a training of this many epochs in advance; None computes all views.

        Raises:
            SettingError: there is no teacher, its logits are not finite, or the disk is full.
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
            self._store.flush()  # before cache.json marks it as complete
            self.facts["complete"] = True
            atomic_json(self.folder / "cache.json", self.facts)

    def logits(self, batch: Batch) -> Tensor:
        """Return the teacher's (B, C) float32 logits of a training batch; missing ones are computed and stored.

        For images without a numbered view the teacher runs live, with one warning.

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
            # the images are fetched again, because those of the batch may have been changed
            self._compute(batch.index[which], batch.view[which])
            (rows,), _ = self._store.read(batch.index.numpy(), batch.view.numpy())
        found = torch.from_numpy(rows)
        device = batch.y.device
        if device.type == "cuda":
            found = found.pin_memory()  # a copy from pageable memory would synchronise with the device
        return found.to(device, non_blocking=True).float() + 0.0  # turns the -0 of the store back into 0

    def _live_logits(self, batch: Batch) -> Tensor:
        if self._source is None:
            expected = "crops and flips among the cached views"
            raise SettingError("data.augment", "other views", expected, "open the cache with its teacher")
        if not self._warned:
            _log.warning("this augmentation is not cached: the teacher runs live instead")
            self._warned = True
        return self._source[0].logits(batch)

    def split_logits(self, name: str, data: Data | None = None) -> Tensor:
        """Return (N, C) float32 logits of ``rate``, ``select`` or ``test`` on the CPU, in the order of the split.

        Raises:
            SettingError: the split is unknown, or not stored in a cache opened without its teacher.
        """
        return self._held_out.logits(name)

    def _gaps(self, views: Views, epochs: int | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the image and view numbers, (M,) each, that are missing in each epoch."""
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
        """Recompute a few stored logits: a changed network or a damaged file must not go unnoticed."""
        assert self._source is not None
        teacher, data = self._source
        self._held_out.check(teacher, data)
        if self._store is None:
            return
        index = torch.linspace(0, self.facts["images"] - 1, PROBE).round().long().unique()
        stored = torch.from_numpy(self._store.stored(index.numpy()))  # (P, V)
        # one random stored view of every image
        draws = torch.rand(stored.shape, generator=torch.Generator().manual_seed(0)).masked_fill(~stored, -1.0)
        best, view = draws.max(dim=1)
        index = index[best >= 0]
        view = view[best >= 0]
        if len(index):
            (rows,), _ = self._store.read(index.numpy(), view.numpy())
            live = view_logits(teacher, data, index, view, np.float32)
            check_equal(self.folder / f"{FILE}.npy", rows.astype(np.float32), live)


def cache_bytes(data: Data) -> int:
    """Return the size of a data set's cache on disk in bytes, without its header."""
    views = 0 if data.train.views is None else len(data.train.views)
    return store_bytes(len(data.train), views, {FILE: (data.num_classes,)})


_FILL = "call cache.fill(epochs=...) in a process that has the teacher"


def _count(views: Views, epochs: int | None) -> int:
    """Return the number of epochs with different views; after them the views repeat."""
    return len(views) if epochs is None else min(epochs, len(views))
