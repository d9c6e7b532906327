"""Teacher logits of every image in every view, computed once and read by every later training."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nas_kd.errors import SettingError
from nas_kd.files import atomic_json, atomic_write, on_disk, read_json
from nas_kd.teacher.teacher import Teacher

if TYPE_CHECKING:
    from nas_kd.data import Batch, Data
    from nas_kd.progress import Progress

HELD_OUT = ("rate", "select", "test")
FACTS = ("key", "images", "views", "classes", "filled")
PROBE = 64  # images recomputed when a finished cache is opened


class ViewCache:
    """Stored teacher logits, fp16 for the views of the training images and fp32 for the held-out splits.

    Made by `open`, or by `load` in a process that has no teacher. A folder holds one sub-folder for each
    teacher, data set and table of views, so that a changed one never meets old values.

    Args:
        folder: the sub-folder with cache.json.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts: dict[str, Any] = read_json(folder / "cache.json", FACTS)
        self._views = self._map("r") if self.facts["views"] else None
        self._splits: dict[str, Tensor] = {}
        self._source: tuple[Teacher, Data, int] | None = None

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return ViewCache.load, (self.folder,)  # a worker maps the file; pickling would copy all of it

    @property
    def teacher(self) -> Teacher | None:
        """The teacher it was opened with, which runs where the cache cannot serve; None after `load`."""
        return None if self._source is None else self._source[0]

    @property
    def fingerprint(self) -> str:
        """The teacher's fingerprint: stored and live answers are those of one teacher."""
        return str(self.facts["key"]["teacher"])

    @classmethod
    def load(cls, folder: str | Path) -> ViewCache:
        """Open a finished cache without its teacher, as worker processes do.

        Args:
            folder: ``cache.folder`` of the process that filled it.

        Returns:
            The cache.

        Raises:
            SettingError: the folder holds no finished cache.
        """
        path = Path(folder)
        if not (path / "cache.json").is_file():
            raise SettingError(
                "teacher cache", str(path), "a folder with cache.json", "give ViewCache.folder"
            )
        cache = cls(path)
        if cache.facts["filled"] < cache.facts["views"]:
            legal = f"a finished cache ({cache.facts['filled']} of {cache.facts['views']} views are filled)"
            raise SettingError("teacher cache", str(path), legal, "fill it by ViewCache.open")
        return cache

    @classmethod
    def open(
        cls,
        folder: str | Path,
        teacher: Teacher,
        data: Data,
        *,
        batch_size: int = 256,
        progress: Progress | None = None,
    ) -> ViewCache:
        """Open a cache and compute what is not there yet, view by view.

        The logits of the training views and of the splits `rate` and `select` are there afterwards; those of
        `test` are computed when they are first asked for. A data set without a table of views gets a cache
        of the splits only.

        Args:
            folder: where the caches of a run lie.
            teacher: the teacher, bound to the data.
            data: the data set.
            batch_size: images a forward pass.
            progress: a started progress of `todo` images, advanced by every batch.

        Returns:
            The cache.

        Raises:
            SettingError: the disk is full or read-only, the teacher's logits are no finite numbers, or a
                finished cache is not what this teacher computes.
        """
        path = _prepare(Path(folder), teacher, data)
        cache = cls(path)
        cache._source = (teacher, data, batch_size)
        finished = cache.facts["filled"] == cache.facts["views"]
        cache._fill(progress)
        for name in ("rate", "select"):
            cache._fill_split(name, progress)
        if finished:
            cache._check()
        return cache

    @staticmethod
    def todo(folder: str | Path, teacher: Teacher, data: Data) -> int:
        """Count the images that `open` would have to compute, for a progress bar.

        Args:
            folder: as in `open`.
            teacher: as in `open`.
            data: as in `open`.

        Returns:
            Number of teacher forwards, in images.
        """
        key = _key(teacher, data)
        path = Path(folder) / _short(key)
        views = 0 if data.train.views is None else len(data.train.views)
        filled = read_json(path / "cache.json", FACTS)["filled"] if (path / "cache.json").is_file() else 0
        splits = [getattr(data, s) for s in ("rate", "select") if not (path / f"{s}.npy").is_file()]
        return (views - filled) * len(data.train) + sum(len(split) for split in splits)

    def logits(self, batch: Batch) -> Tensor | None:
        """Read the teacher's logits of a training batch.

        Args:
            batch: images with their numbers and views.

        Returns:
            (B, C) float32 on the device of the images; None when a view is -1, which no cache can serve.
        """
        if self._views is None or bool((batch.view < 0).any()):
            return None
        stored = self._views[batch.index.cpu().numpy(), batch.view.cpu().numpy()]  # (B, C) fp16
        return torch.from_numpy(stored.astype(np.float32)).to(batch.x.device)

    def split_logits(self, name: str) -> Tensor:
        """Read the teacher's logits of a held-out split.

        Args:
            name: ``rate``, ``select`` or ``test``.

        Returns:
            (N, C) float32 in the order of the split, on the CPU.

        Raises:
            SettingError: the split is unknown, or not stored in a cache opened without its teacher.
        """
        if name not in HELD_OUT:
            raise SettingError("split", name, ", ".join(HELD_OUT))
        if name not in self._splits:
            path = self.folder / f"{name}.npy"
            if not path.is_file():
                self._fill_split(name, None)
            with _undamaged(path):
                self._splits[name] = torch.from_numpy(np.load(path))
        return self._splits[name]

    def _map(self, mode: Any) -> np.memmap[Any, np.dtype[np.float16]]:
        path = self.folder / "views.npy"
        with _undamaged(path):
            return np.lib.format.open_memmap(path, mode=mode)

    def _fill(self, progress: Progress | None) -> None:
        if self.facts["filled"] == self.facts["views"]:
            return
        assert self._source is not None
        teacher, data, batch_size = self._source
        views = self._map("r+")
        for view in range(self.facts["filled"], self.facts["views"]):
            for batch in data.train.view_batches(batch_size, view):
                views[batch.index.cpu().numpy(), view] = self._ask(teacher, batch, np.float16)
                if progress is not None:
                    progress.advance(len(batch.x))
            with on_disk(self.folder):
                views.flush()  # before cache.json says so: a kill in between only repeats this view
            self.facts["filled"] = view + 1
            atomic_json(self.folder / "cache.json", self.facts)

    def _fill_split(self, name: str, progress: Progress | None) -> None:
        path = self.folder / f"{name}.npy"
        if path.is_file():
            return
        if self._source is None:
            mend = f"call split_logits({name!r}) once where the teacher is"
            raise SettingError("split", name, "a split whose logits are stored", mend)
        teacher, data, batch_size = self._source
        rows = []
        for batch in getattr(data, name).clean(batch_size):
            rows.append(self._ask(teacher, batch, np.float32))
            if progress is not None:
                progress.advance(len(batch.x))
        empty = np.zeros((0, self.facts["classes"]), np.float32)
        buffer = io.BytesIO()
        np.save(buffer, np.concatenate(rows) if rows else empty)
        atomic_write(path, buffer.getbuffer())

    def _ask(self, teacher: Teacher, batch: Batch, dtype: type[np.floating[Any]]) -> np.ndarray[Any, Any]:
        logits = teacher(batch.x).float().cpu()
        largest = float(logits.abs().max())
        limit = float(np.finfo(dtype).max)
        if not math.isfinite(largest) or largest > limit:
            legal = f"a network whose logits are finite and at most {limit:g} (found {largest:g})"
            mend = "check the teacher's checkpoint and its normalisation (teacher.mean, teacher.std)"
            raise SettingError("teacher.model", teacher.name, legal, mend)
        return logits.numpy().astype(dtype)

    def _check(self) -> None:
        """Recompute one batch: weights in a changed network, or a damaged file, must not go unseen."""
        assert self._source is not None
        teacher, data, batch_size = self._source
        size = min(batch_size, PROBE)
        if self._views is not None:
            batch = next(iter(data.train.view_batches(size, self.facts["views"] - 1)))
            stored = self.logits(batch)
        else:
            batch = next(iter(data.rate.clean(size)))
            stored = self.split_logits("rate")[: len(batch.x)].to(batch.x.device)
        assert stored is not None
        live = teacher(batch.x).float()
        # fp16 keeps 11 bits; the rest is the difference between batch sizes, threads and devices
        allowed = live.abs() * 2.0**-10 + live.abs().max() * 1e-3
        if bool(((live - stored).abs() > allowed).any()):
            legal = f"what the teacher {teacher.name} computes now"
            mend = f"delete {self.folder}: it is then computed again"
            raise SettingError("teacher cache", str(self.folder), legal, mend)


@contextmanager
def _undamaged(path: Path) -> Iterator[None]:
    """Turn what numpy says of a damaged or missing file into an error that says what to do."""
    try:
        yield
    except (ValueError, EOFError, FileNotFoundError) as error:
        mend = f"delete {path.parent}: it is then computed again"
        raise SettingError("teacher cache", str(path), "the array that nas_kd wrote, undamaged", mend) from error


def _key(teacher: Teacher, data: Data) -> dict[str, Any]:
    """Collect what decides the stored values."""
    views = data.train.views
    members = {name: _digest(getattr(data, name).names) for name in ("train", *HELD_OUT)}
    return {
        "teacher": teacher.fingerprint,
        "data": data.fingerprint,
        "members": members,
        "resolution": data.resolution,
        "mean": list(data.mean),
        "std": list(data.std),
        "views": None if views is None else views.key,
    }


def _digest(names: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(map(str, names)).encode()).hexdigest()


def _short(key: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]


def _prepare(root: Path, teacher: Teacher, data: Data) -> Path:
    """Make the folder of a cache with room for all views, once."""
    key = _key(teacher, data)
    folder = root / _short(key)
    if (folder / "cache.json").is_file():
        return folder
    views = 0 if data.train.views is None else len(data.train.views)
    shape = (len(data.train), views, data.num_classes)
    with on_disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        need, free = 2 * math.prod(shape), shutil.disk_usage(folder).free
        if need > free:
            legal = f"a disk with {need / 2**30:.1f} GiB free for {views} views ({free / 2**30:.1f} GiB are)"
            raise SettingError("teacher cache", str(folder), legal, "free space, or set fewer data.views")
        if views:
            np.lib.format.open_memmap(folder / "views.npy", mode="w+", dtype=np.float16, shape=shape).flush()
            if hasattr(os, "posix_fallocate"):  # a disk that fills up later would kill a writer of the map
                with open(folder / "views.npy", "r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
    facts = {"key": key, "images": shape[0], "views": views, "classes": shape[2], "filled": 0}
    atomic_json(folder / "cache.json", facts)
    return folder
