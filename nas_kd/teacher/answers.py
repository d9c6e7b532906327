"""The file of a teacher's answers: one entry for each view of each image, shared by any number of processes."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nas_kd.errors import SettingError
from nas_kd.runs.files import atomic_json, on_disk

if TYPE_CHECKING:
    from nas_kd.data import Data
    from nas_kd.teacher.targets import LiveSource

EMPTY = 0xFFFF  # as fp16 a NaN, which no answer is
FILE = "views.npy"


class AnswerFile:
    """Logits (N, V, C) in fp16, mapped into memory.

    An answer that is not there yet reads as EMPTY: value and mark are one and cannot be torn apart, whoever
    writes at the same time and wherever a kill falls. Writers need no lock, for an answer is a function of
    image and view alone: two that write the same entry write the same bits.

    Args:
        folder: the folder that `prepare` made.
        writable: whether entries may be added.

    Raises:
        SettingError: the file is damaged or missing, or may not be written.
    """

    def __init__(self, folder: Path, writable: bool) -> None:
        self.path = folder / FILE
        with undamaged(self.path), on_disk(self.path):
            self._values = np.lib.format.open_memmap(self.path, mode="r+" if writable else "r")
            self._bits = self._values.view(np.uint16)

    def read(self, index: NDArray[Any], view: NDArray[Any]) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
        """Read entries.

        Args:
            index: (B,) image numbers.
            view: (B,) view numbers.

        Returns:
            (B, C) logits, and (B,) which of them are not there yet.
        """
        rows = self._values[index, view]  # (B, C), a copy
        return rows, (rows.view(np.uint16) == EMPTY).any(axis=1)

    def write(self, index: NDArray[Any], view: NDArray[Any], rows: NDArray[np.float16]) -> None:
        """Write entries: (B, C) logits of images (B,) in views (B,)."""
        self._values[index, view] = rows

    def stored(self, index: NDArray[Any]) -> NDArray[np.bool_]:
        """Tell for images (B,) which views are there: (B, V)."""
        found: NDArray[np.bool_] = self._bits[index, :, -1] != EMPTY
        return found

    def flush(self) -> None:
        """Wait until what was written is on the disk."""
        with on_disk(self.path):
            self._values.flush()


@contextmanager
def undamaged(path: Path) -> Iterator[None]:
    """Turn what numpy says of a damaged or missing file into an error that says what to do."""
    try:
        yield
    except (ValueError, EOFError, FileNotFoundError) as error:
        mend = f"delete {path.parent}: it is then computed again"
        raise SettingError("teacher cache", str(path), "the array that nas_kd wrote, undamaged", mend) from error


def data_key(data: Data) -> dict[str, Any]:
    """Collect what decides a teacher's answers besides the teacher."""
    views = data.train.views
    return {
        "data": data.fingerprint,
        "resolution": data.resolution,
        "mean": list(data.mean),
        "std": list(data.std),
        "views": None if views is None else views.key,
    }


def cache_key(teacher: LiveSource, data: Data) -> dict[str, Any]:
    """Collect what decides the stored values and how they are marked."""
    return {"teacher": teacher.fingerprint, **data_key(data), "empty": EMPTY}


def cache_path(root: str | Path, teacher: LiveSource, data: Data) -> Path:
    """Name the folder of a cache by its key, so that a changed teacher or data set never meets old values."""
    digest = hashlib.sha256(json.dumps(cache_key(teacher, data), sort_keys=True).encode()).hexdigest()
    return Path(root).expanduser() / digest[:12]


def answers_bytes(data: Data) -> int:
    """Compute the size of the file in bytes: images x views x classes in fp16, without its header."""
    views = 0 if data.train.views is None else len(data.train.views)
    return 2 * len(data.train) * views * data.num_classes


def prepare(root: str | Path, teacher: LiveSource, data: Data) -> Path:
    """Make the folder of a cache with room for all views, once.

    Args:
        root: where caches lie.
        teacher: the teacher, bound to the data.
        data: the data set.

    Returns:
        The folder, with cache.json and, where there are views, the file.

    Raises:
        SettingError: the disk is full or read-only, or the folder has lost its cache.json.
    """
    folder = cache_path(root, teacher, data)
    if (folder / "cache.json").is_file():
        return folder
    views = 0 if data.train.views is None else len(data.train.views)
    shape = (len(data.train), views, data.num_classes)
    # made under another name and renamed: of two processes that begin at once the second finds it finished
    part = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    with on_disk(folder):
        part.mkdir(parents=True, exist_ok=True)
        need = 2 * math.prod(shape)
        free = shutil.disk_usage(part).free
        if need > free:
            part.rmdir()
            legal = f"a disk with {need / 2**30:.1f} GiB free for {views} views ({free / 2**30:.1f} GiB are)"
            raise SettingError("teacher cache", str(folder), legal, "free space, or set fewer data.views")
        if views:  # really written: where a disk fills up under a sparse map, its writer is killed
            with open(part / FILE, "wb") as file:
                described = {"descr": "<f2", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, described)
                block = np.full(2**22, EMPTY, dtype="<u2")
                for start in range(0, math.prod(shape), len(block)):
                    file.write(block[: math.prod(shape) - start].data)
                file.flush()
                os.fsync(file.fileno())
        key = cache_key(teacher, data)
        facts = {"key": key, "images": shape[0], "views": views, "classes": shape[2], "complete": not views}
        atomic_json(part / "cache.json", facts)
        try:
            part.rename(folder)
        except OSError as error:
            shutil.rmtree(part, ignore_errors=True)
            if folder.is_dir() and not (folder / "cache.json").is_file():
                mend = f"delete {folder}: it is then computed again"
                raise SettingError("teacher cache", str(folder), "a folder with its cache.json", mend) from error
            if not folder.is_dir():
                raise
    return folder
