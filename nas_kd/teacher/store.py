"""Storage of a teacher's outputs for every view of an image: in memory, or in files shared by processes."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nas_kd.errors import SettingError
from nas_kd.runs.files import atomic_json, on_disk, read_json
from nas_kd.runs.links import create, part_of, refuse_links, remove

if TYPE_CHECKING:
    from nas_kd.data import Data
    from nas_kd.teacher.targets import LiveSource

Float16Array = NDArray[np.float16]
Shapes = Mapping[str, tuple[int, ...]]  # name of an array -> shape of its entry

FACTS = ("key", "images", "views", "arrays", "complete")
VERSION = 2  # of the format; part of the name of the folder
_MINUS_ZERO = 0x8000


class ViewStore:
    """Arrays (N, V, ...) in fp16, with one entry for every view of every image.

    A missing entry has all bits zero, and a zero in a stored entry is written as -0: the value itself marks an entry
    as stored, so neither concurrent writers nor a kill can separate the two, and unwritten space counts as missing.
    Writers need no lock, because an entry depends only on image and view: two writers of the same entry write the
    same bits.

    Args:
        folder: folder of the files; None in memory.
    """

    def __init__(self, arrays: Sequence[Float16Array], folder: Path | None = None) -> None:
        self._arrays = list(arrays)
        self._bits = [array.view(np.uint16) for array in arrays]
        self._folder = folder

    @classmethod
    def in_memory(cls, images: int, views: int, shapes: Shapes) -> ViewStore:
        """Create an empty store in memory, which the system allocates as entries are written."""
        return cls([np.zeros((images, views, *shape), np.float16) for shape in shapes.values()])

    @classmethod
    def open(cls, folder: Path, writable: bool) -> ViewStore:
        """Map the files of a folder created by `prepare`.

        Raises:
            SettingError: a file is damaged, missing or not writable.
        """
        if writable:
            refuse_links(folder)
        arrays = []
        facts = read_facts(folder)
        for name in facts["arrays"]:
            path = folder / f"{name}.npy"
            with undamaged(path), on_disk(path):
                array = np.lib.format.open_memmap(path, mode="r+" if writable else "r")
                if array.dtype != np.float16 or array.shape[:2] != (facts["images"], facts["views"]):
                    raise ValueError("it is of other images")
                arrays.append(array)
        return cls(arrays, folder)

    def read(self, index: NDArray[Any], view: NDArray[Any]) -> tuple[list[Float16Array], NDArray[np.bool_]]:
        """Return (B, ...) of each array for images and views (B,), and a mask (B,) of the missing ones."""
        rows = [array[index, view] for array in self._arrays]  # copies
        missing = np.zeros(len(index), bool)
        for row in rows:
            missing |= (row.view(np.uint16) == 0).reshape(len(index), -1).any(axis=1)
        return rows, missing

    def write(self, index: NDArray[Any], view: NDArray[Any], rows: Sequence[Float16Array]) -> None:
        """Write entries of images (B,) in views (B,): (B, ...) of each array."""
        for bits, row in zip(self._bits, rows, strict=True):
            new = row.view(np.uint16)
            bits[index, view] = np.where(new == 0, _MINUS_ZERO, new)

    def stored(self, index: NDArray[Any]) -> NDArray[np.bool_]:
        """Return a mask (B, V) of the stored views of images (B,)."""
        last = self._bits[-1].reshape(*self._bits[-1].shape[:2], -1)
        found: NDArray[np.bool_] = last[index, :, -1] != 0
        return found

    def flush(self) -> None:
        """Wait until everything written is on disk."""
        for array in self._arrays:
            if isinstance(array, np.memmap) and self._folder is not None:
                with on_disk(self._folder):
                    array.flush()


@contextmanager
def undamaged(path: Path) -> Iterator[None]:
    """Replace numpy's error on a damaged or missing file by one with a hint."""
    try:
        yield
    except (ValueError, EOFError, FileNotFoundError) as error:
        hint = f"delete {path.parent}: it will be computed again"
        raise SettingError("teacher cache", str(path), "an undamaged array written by nas_kd", hint) from error


def data_key(data: Data) -> dict[str, Any]:
    """Return what determines the outputs of a teacher besides the teacher."""
    views = data.train.views
    return {
        "data": data.fingerprint,
        "resolution": data.resolution,
        "mean": list(data.mean),
        "std": list(data.std),
        "views": None if views is None else views.key,
    }


def same_data(key: Mapping[str, Any], data: Data, ignore: Sequence[str] = ()) -> str:
    """Describe how the data of stored values differ, such as "different views"; empty if they do not."""
    now = data_key(data)
    other = [name for name in now if key[name] != now[name] and name not in ignore]
    return " and ".join(f"different {name}" for name in other)


def store_key(teacher: LiveSource, data: Data, **more: object) -> dict[str, Any]:
    """Return what determines the stored values and their format."""
    return {"teacher": teacher.fingerprint, **data_key(data), "version": VERSION, **more}


def store_path(root: str | Path, key: Mapping[str, Any]) -> Path:
    """Return the folder of a key, so that a changed teacher or data set never reads old values."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return Path(root).expanduser() / digest[:12]


def read_facts(folder: Path) -> dict[str, Any]:
    """Read cache.json of a folder."""
    return read_json(folder / "cache.json", FACTS)


def store_bytes(images: int, views: int, shapes: Shapes) -> int:
    """Return the size of a store in bytes, without the headers of its files."""
    return 2 * images * views * sum(math.prod(shape) for shape in shapes.values())


def prepare(root: str | Path, key: Mapping[str, Any], images: int, views: int, shapes: Shapes, hint: str) -> Path:
    """Create the folder of a store with space for all views, unless it exists.

    Args:
        views: views per image; 0 creates no files.
        shapes: shape of an entry of each array, by name.

    Raises:
        SettingError: the disk is full or read-only, or the folder has no cache.json.
    """
    folder = store_path(root, key)
    if (folder / "cache.json").is_file():
        return folder
    # created under another name and renamed: of two processes that start together the second finds it complete
    part = part_of(folder)
    with on_disk(folder):
        remove(part)
        part.mkdir(parents=True)
        need = store_bytes(images, views, shapes)
        free = shutil.disk_usage(part).free
        if need > free:
            part.rmdir()
            expected = f"a disk with {need / 2**30:.1f} GiB free for {views} views; it has {free / 2**30:.1f} GiB"
            raise SettingError("teacher cache", str(folder), expected, hint)
        for name, shape in shapes.items() if views else ():
            _allocate(part / f"{name}.npy", (images, views, *shape))
        arrays = list(shapes) if views else []
        facts = {"key": key, "images": images, "views": views, "arrays": arrays, "complete": not views}
        atomic_json(part / "cache.json", facts)
        try:
            part.rename(folder)
        except OSError as error:
            shutil.rmtree(part, ignore_errors=True)
            if folder.is_dir() and not (folder / "cache.json").is_file():
                hint = f"delete {folder}: it will be computed again"
                raise SettingError("teacher cache", str(folder), "a folder with its cache.json", hint) from error
            if not folder.is_dir():
                raise
    return folder


def _allocate(path: Path, shape: tuple[int, ...]) -> None:
    """Create an allocated array of zeros: on a full disk, writing to a sparse map would kill the process."""
    with create(path) as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})
        file.flush()
        size = 2 * math.prod(shape)
        if size and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), file.tell(), size)
        else:
            block = bytes(2**23)
            for start in range(0, size, len(block)):
                file.write(block[: size - start])
        file.flush()
        os.fsync(file.fileno())
