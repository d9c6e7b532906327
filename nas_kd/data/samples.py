"""WebDataset's samples: tars whose members of one name are an image and what is said of it, read as a table."""

from __future__ import annotations

import re
import tarfile
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nas_kd.config.reading import parsed
from nas_kd.data.formats import is_hidden, is_image_name
from nas_kd.data.shards import PREFIX, named_shards, splits_of
from nas_kd.data.source import LARGEST
from nas_kd.data.table import Table
from nas_kd.data.tars import check_inside, opened
from nas_kd.data.tree import natural, printable
from nas_kd.errors import SettingError

IMAGE = "image"  # column of the images, whatever their format
SAMPLE = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)")  # key and what its member is, as WebDataset divides a name
MOST = 2**20  # bytes of what is said of a sample


class Span(NamedTuple):
    """Where an image lies in its tar: first byte and number of bytes."""

    start: int
    size: int


class ShardCells:
    """Images of samples, which stay in their tars.

    Args:
        files: the tars.
        places: (N, 3) number of the tar, first byte and number of bytes of each image; -1 where there is none.
    """

    def __init__(self, files: Sequence[Path], places: NDArray[np.int64]) -> None:
        self._files = list(map(str, files))
        self._places = places

    def __call__(self, row: int) -> bytes:
        """Return the bytes of an image.

        Raises:
            OSError: the sample has none, or it is too large.
        """
        number, start, size = self._places[row].tolist()
        if number < 0:
            raise OSError("the sample has no image of this name")
        if size > LARGEST:
            raise OSError(f"it has more than {LARGEST:,} bytes")
        with open(self._files[number], "rb") as file:
            file.seek(start)
            return file.read(size)


def read_samples(what: str, given: str, labels: Sequence[str] = ()) -> Table:
    """Read the names and labels of samples; images are read when they are used.

    Members ``KEY.jpg``, ``KEY.cls`` and ``KEY.json`` are a sample: an image, a class (its number or name), and an
    object whose texts and numbers are columns of their own. Where the names of all tars say a split, it is a column.

    Args:
        what: the setting, for messages.
        given: what it says after ``wds/``: a folder, a file, or a pattern with ``*``, ``{a,b}`` or ``{000..019}``.
        labels: columns of labels that were named; ``txt`` is read for that alone.

    Raises:
        SettingError: there is no such tar, one is damaged, or a key is in two of them.
    """
    root, paths = named_shards(what, given)
    homes: dict[str, int] = {}  # key to the number of its tar
    places: dict[str, array[int]] = {}  # image to three numbers a sample, see ShardCells
    said: dict[str, list[Any]] = {}  # column to a value a sample
    for number, path in enumerate(paths):
        for key, sample in _samples(what, path, labels):
            if key in homes:
                other = paths[homes[key]].name
                where = f"in {other} and in {path.name}" if homes[key] != number else f"twice in {path.name}, apart"
                expected = f"a key a sample; {key} is {where}"
                raise SettingError(what, f"{PREFIX}{given}", expected, "rename the samples of one, or delete one")
            for name, value in sample.items():
                if isinstance(value, Span):
                    row = places.setdefault(name, array("q"))
                    row.extend((-1, 0, 0) * (len(homes) - len(row) // 3))
                    row.extend((number, *value))
                else:
                    column = said.setdefault(name, [])
                    column.extend([None] * (len(homes) - len(column)))
                    column.append(value)
            homes[key] = number
    if not places:
        expected = f"samples with an image; {len(homes)} samples have none"
        raise SettingError(what, f"{PREFIX}{given}", expected, "give tars with members such as KEY.jpg and KEY.cls")
    splits = splits_of(root, paths)
    if None not in splits:
        said.setdefault("split", [splits[number] for number in homes.values()])
    keys = list(homes)
    order = sorted(range(len(keys)), key=lambda row: natural(keys[row]))  # however the samples are dealt to tars

    def cells(name: str) -> ShardCells:
        row = places[name]
        row.extend((-1, 0, 0) * (len(keys) - len(row) // 3))
        return ShardCells(paths, np.array(row, dtype=np.int64).reshape(-1, 3)[order])

    def values(name: str) -> NDArray[Any]:
        column = [*said[name], *[None] * (len(keys) - len(said[name]))]
        return _column([column[row] for row in order])

    names = tuple(keys[row] for row in order)
    return Table(f"{PREFIX}{given}", (*places, *said), values, tuple(places), cells=cells, names=names)


def _samples(what: str, path: Path, labels: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return the samples of a tar: of images their places, of all else what they say."""
    last: str | None = None
    sample: dict[str, Any] = {}
    with opened(what, path) as tar:
        for info in tar:
            check_inside(what, path, info.name)
            name = printable(PurePosixPath(info.name).as_posix())
            parts = SAMPLE.fullmatch(name)
            if not info.isfile() or info.issparse() or parts is None or any(map(is_hidden, name.split("/"))):
                continue
            key, kind = parts.group(1), parts.group(2).lower()
            if key != last:
                if last is not None:
                    yield last, sample
                last, sample = key, {}
            if is_image_name(f"x.{kind}"):
                sample[kind if "." in kind else IMAGE] = Span(info.offset_data, info.size)
            elif kind in ("cls", "json") or kind == "txt" in labels:
                sample |= _said(what, path, tar, info, kind)
        if last is not None:
            yield last, sample


def _said(what: str, path: Path, tar: tarfile.TarFile, info: tarfile.TarInfo, kind: str) -> dict[str, Any]:
    """Read what a member says of its sample, as columns."""
    if info.size > MOST:
        expected = f"at most {MOST:,} bytes in {info.name}; it has {info.size:,}"
        raise SettingError(what, str(path), expected, "leave out what is no label")
    member = tar.extractfile(info)
    assert member is not None  # a regular file
    raw = member.read()
    try:
        if kind != "json":
            return {kind: raw.decode().strip()}
        found = parsed(raw)
    except ValueError as error:  # wrong encodings are ValueErrors too
        raise SettingError(
            what, f"{path}: {info.name}", f"text, or a JSON object ({error})", "write it anew"
        ) from error
    if not isinstance(found, dict):
        return {}
    return {str(name): value for name, value in found.items() if isinstance(value, str | int | float | None)}


def _column(values: list[Any]) -> NDArray[Any]:
    """Make a column, of numbers where all values are; classes that are written in digits are numbers."""
    if all(isinstance(value, str) and value.isdecimal() for value in values):
        return np.array([int(value) for value in values], dtype=np.int64)
    plain = all(isinstance(value, int | float) for value in values)
    return np.array(values) if plain else np.array(values, dtype=object)
