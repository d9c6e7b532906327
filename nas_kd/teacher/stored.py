"""A teacher's features of all cut points on the disk: one entry a view of an image, for all stages and processes."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nas_kd.errors import SettingError
from nas_kd.nn.output import Output
from nas_kd.runs.files import atomic_json, on_disk
from nas_kd.teacher.answers import data_key
from nas_kd.teacher.ask import CHUNK, CHUNK_CPU
from nas_kd.teacher.taps import Tap, pool_to
from nas_kd.teacher.teacher import Teacher

if TYPE_CHECKING:
    from nas_kd.data import Batch, Data


def feature_bytes(taps: Sequence[Tap], images: int, views: int) -> int:
    """Compute what stored features take on the disk: fp16, averaged to the students' sizes, and a mark each.

    Args:
        taps: the teacher's layers, one a stage.
        images: number of images.
        views: views of an image.

    Returns:
        Bytes.
    """
    return images * views * (2 * sum(math.prod(shape) for shape in _shapes(taps)) + 1)


def _shapes(taps: Sequence[Tap]) -> list[tuple[int, int, int]]:
    """Return (C, H, W) of what is stored: each tap after its last activation but for the last, then each before it."""
    whole = [(tap.channels, tap.student_size, tap.student_size) for tap in taps]
    return [*whole[:-1], *whole]


class StoredTaps:
    """Features of the training images' numbered views in fp16, mapped into memory and computed when first asked for.

    Any number of processes use a folder at once: an entry is a function of image and view alone, so two that
    write it write the same bits, and its mark is set when it is whole. The features are divided by powers of two
    before they are rounded, so that large and tiny ones keep eleven bits.

    Args:
        folder: where such files lie; a sub-folder is made for this teacher, data and taps.
        teacher: the teacher, its taps chosen.
        data: the data set, with numbered views.
        scales: a power of two a tap, for its feature after the last activation and for that before.

    Raises:
        SettingError: the views are not numbered, or the disk has no room.
    """

    def __init__(
        self, folder: Path, teacher: Teacher, data: Data, scales: tuple[Sequence[float], Sequence[float]]
    ) -> None:
        if data.train.views is None:
            raise SettingError("data.views", 0, "numbered views for stored features", "set data.views=8")
        assert teacher.taps is not None  # its user has matched it
        self.teacher, self.data, self._views = teacher, data, len(data.train.views)
        self._scales = [*list(scales[0])[:-1], *scales[1]]
        count = len(data.train) * self._views
        shapes = _shapes(teacher.taps)
        taps = [f"{tap.path} {tap.size}>{tap.student_size}" for tap in teacher.taps]
        key = {"teacher": teacher.fingerprint, "taps": taps, "scales": self._scales, **data_key(data)}
        path = folder / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
        sizes = [2 * count * math.prod(shape) for shape in shapes] + [count]
        names = [f"feature_{number}.f16" for number in range(len(shapes))] + ["known.u8"]
        with on_disk(path):
            path.mkdir(parents=True, exist_ok=True)
            have = sum((path / name).stat().st_size for name in names if (path / name).exists())
            need = sum(sizes) - have
            free = shutil.disk_usage(path).free
            if need > free:
                legal = f"a disk with {need / 1e9:.1f} GB free ({free / 1e9:.1f} are), or a limit below that"
                raise SettingError("blockwise.cache_gb", f"{need / 1e9:.1f}", legal, "use blockwise.cache_gb=0")
            for name, size in zip(names, sizes, strict=True):
                _room(path / name, size)
            atomic_json(path / "features.json", key)
        self._parts = [
            np.memmap(path / name, np.float16, "r+", shape=(count, *shape))
            for name, shape in zip(names[:-1], shapes, strict=True)
        ]
        self._known = np.memmap(path / names[-1], np.uint8, "r+", shape=(count,))

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Output:
        """Return the features of a training batch, in float32 on the device of its images; logits are left empty."""
        at = (batch.index * self._views + batch.view).numpy()
        missing = torch.from_numpy(self._known[at] == 0)
        if missing.any():
            self._store(batch.index[missing], batch.view[missing])
        found = []
        for part, scale in zip(self._parts, self._scales, strict=True):
            found.append(torch.from_numpy(part[at]).to(batch.x.device).float() * scale)
        before = len(found) // 2
        last = found[-1]  # no stage is fed by the last tap
        return Output(last.new_empty(0), [*found[:before], last], found[before:], last.new_empty(0))

    def _store(self, index: Tensor, view: Tensor) -> None:
        # always as many images at once, filled up with repeats, so that the bits do not depend on the batch
        size = CHUNK_CPU if self.teacher.device.type == "cpu" else CHUNK
        taps = self.teacher.taps or ()
        for some, shown in zip(index.split(size), view.split(size), strict=True):
            count = len(some)
            full = [torch.cat([part, part[:1].expand(size - count)]) for part in (some, shown)]
            with torch.autocast(self.teacher.device.type, enabled=False):
                out = self.teacher.forward_stages(self.data.train.shown(*full).x)
            features = [pool_to(x, tap.student_size) for x, tap in zip(out.stages, taps, strict=True)][:-1]
            features += [pool_to(x, tap.student_size) for x, tap in zip(out.pre, taps, strict=True)]
            at = (some * self._views + shown).numpy()
            for part, feature, scale in zip(self._parts, features, self._scales, strict=True):
                part[at] = _halved(feature[:count] / scale, self.teacher.name)
            self._known[at] = 1


def _halved(feature: Tensor, name: str) -> np.ndarray:
    largest = float(feature.abs().max())
    limit = torch.finfo(torch.float16).max
    if not math.isfinite(largest) or largest > limit:
        legal = f"a network whose features are finite and at most {limit:g} times their usual size (found {largest:g})"
        raise SettingError("teacher.model", name, legal, "use blockwise.cache_gb=0")
    return feature.to("cpu", torch.float16).numpy()


def _room(path: Path, size: int) -> None:
    """Make a file of zeros that is really there: where a disk fills up under a sparse map, its writer is killed."""
    if path.exists() and path.stat().st_size == size:
        return
    with open(path, "ab") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
