"""WebDataset's samples: tars whose members of one name are an image and what is said of it, read as a table."""

from __future__ import annotations

import tarfile
from array import array
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nas_kd.config.reading import parsed
from nas_kd.data.columns import GROUP
from nas_kd.data.formats import is_hidden, is_image_name
from nas_kd.data.shards import PREFIX, named_shards, splits_of
from nas_kd.data.source import LARGEST
from nas_kd.data.table import Table
from nas_kd.data.tars import SAMPLE, check_inside, opened
from nas_kd.data.tree import natural, printable
from nas_kd.errors import SettingError

IMAGE = "image"  # column of the images, where samples have one each
MOST = 2**20  # bytes of what is said of a sample
LONGEST = 256  # characters of a label; what is longer, such as a caption, is none
FOUND = ("split", *GROUP)  # columns that are taken by their names, in lower case
NOWHERE = (-1, 0, 0)  # see ShardCells


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

    def home(self, row: int) -> str:
        """Return the tar that an image lies in, for messages."""
        number = int(self._places[row, 0])
        return self._files[number] if number >= 0 else "no tar"


class Samples:
    """Samples as they are read, a row each.

    Args:
        what: the setting, for messages.
        origin: its value.
        root: folder of the tars.
        paths: the tars.
    """

    def __init__(self, what: str, origin: str, root: Path, paths: Sequence[Path]) -> None:
        self.what = what
        self.origin = origin
        self.root = root
        self.paths = paths
        self.homes: dict[str, int] = {}  # key to the number of its tar
        self.places: dict[str, array[int]] = {}  # kind of image to three numbers a sample, see ShardCells
        self.said: dict[str, list[Any]] = {}  # column to a value a sample
        self.several = False  # whether a sample has images of two plain kinds, such as .jpg and .png

    def add(self, key: str, sample: dict[str, Any], number: int) -> None:
        """Add a sample of a tar.

        Raises:
            SettingError: there is one of this key.
        """
        if key in self.homes:
            places = [self.paths[at].relative_to(self.root) for at in (self.homes[key], number)]
            where = f"in {places[0]} and in {places[1]}" if places[0] != places[1] else f"apart in {places[0]}"
            expected = f"the members of a key one after the other; those of {key} are {where}"
            hint = "pack the members of a sample together, or rename those of another one"
            raise SettingError(self.what, self.origin, expected, hint)
        count = len(self.homes)
        for name, value in sample.items():
            if isinstance(value, Span):
                row = self.places.setdefault(name, array("q"))
                row.extend(NOWHERE * (count - len(row) // 3))
                row.extend((number, *value))
            else:
                column = self.said.setdefault(name, [])
                column.extend([None] * (count - len(column)))
                column.append(value)
        self.several |= sum(isinstance(value, Span) and "." not in name for name, value in sample.items()) > 1
        self.homes[key] = number

    def images(self) -> dict[str, NDArray[np.int64]]:
        """Return (N, 3) places of each column of images: one for all plain kinds, unless a sample has several."""
        found = {}
        for name, row in self.places.items():
            row.extend(NOWHERE * (len(self.homes) - len(row) // 3))
            found[name] = np.array(row, dtype=np.int64).reshape(-1, 3)
        plain = [name for name in found if "." not in name]
        if plain and not self.several:
            one = found[plain[0]]
            for name in plain[1:]:
                one = np.where(found[name][:, :1] >= 0, found[name], one)
            found = {IMAGE: one} | {name: places for name, places in found.items() if name not in plain}
        return found


def read_samples(
    what: str, given: str, labels: Sequence[str] = (), others: Collection[str] = (), without: Collection[Path] = ()
) -> Table:
    """Read the names and labels of samples; images are read when they are used.

    Members ``KEY.jpg``, ``KEY.cls`` and ``KEY.json`` are a sample: an image, a class (its number or name), and an
    object whose texts and numbers are columns of their own. Where the names of all tars say a split, it is a column.

    Args:
        what: the setting, for messages.
        given: what it says after ``wds/``: a folder, a tar, or a pattern with ``*``, ``{a,b}`` or ``{000..019}``.
        labels: columns of labels, if they were named: of the others only those of splits and groups are kept then.
            ``txt`` is read for that alone.
        others: further columns that are kept then.
        without: tars that are left out, such as those of the test images.

    Raises:
        SettingError: there is no such tar, one is damaged, or the members of a key lie apart.
    """
    root, paths = named_shards(what, given)
    paths = [path for path in paths if path.resolve() not in without] or paths
    samples = Samples(what, f"{PREFIX}{given}", root, paths)
    kept = {*labels, *others} if labels else None
    for number, path in enumerate(paths):
        for key, sample in _samples(what, path, kept):
            samples.add(key, sample, number)
    images, said = samples.images(), samples.said
    if any(name not in said for name in labels):  # there is none of this name: the message lists those that there are
        return read_samples(what, given, without=without)
    if not images:
        expected = f"samples with an image; {len(samples.homes)} samples have none"
        raise SettingError(what, samples.origin, expected, "give tars with members such as KEY.jpg and KEY.cls")
    full = sorted(set(samples.homes.values()))
    splits = dict(zip(full, splits_of(root, [paths[number] for number in full]), strict=True))
    if None not in splits.values():
        said.setdefault("split", [splits[number] for number in samples.homes.values()])
    keys = list(samples.homes)
    # the same order however samples are dealt to tars
    order = sorted(range(len(keys)), key=lambda row: (natural(keys[row]), keys[row]))

    def cells(name: str) -> ShardCells:
        return ShardCells(paths, images[name][order])

    def values(name: str) -> NDArray[Any]:
        column = [*said[name], *[None] * (len(keys) - len(said[name]))]
        return _column([column[row] for row in order], numbers=name == "cls")

    names = tuple(keys[row] for row in order)
    return Table(samples.origin, (*images, *said), values, tuple(images), cells=cells, names=names)


def _samples(what: str, path: Path, kept: Collection[str] | None) -> Iterator[tuple[str, dict[str, Any]]]:
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
            found: dict[str, Any] = {}
            if is_image_name(f"x.{kind}"):
                found = {kind: Span(info.offset_data, info.size)}
            elif kind in ("cls", "json") or (kept is not None and kind == "txt" and kind in kept):
                found = _said(what, path, tar, info, kind)
                found = {
                    name: value
                    for name, value in found.items()
                    if kept is None or name in kept or name.strip().lower() in FOUND
                }
            else:
                continue
            if key != last:
                if last is not None:
                    yield last, sample
                last, sample = key, {}
            sample |= found
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
        where, expected = f"{path}: {info.name}", f"text, or a JSON object ({error})"
        raise SettingError(what, where, expected, "write it anew") from error
    columns = {}
    for name, value in found.items() if isinstance(found, dict) else ():
        if isinstance(value, str | int | float | None) and not (isinstance(value, str) and len(value) > LONGEST):
            taken = name in (IMAGE, "cls", "txt") or is_image_name(f"x.{name}")
            columns[f"json.{name}" if taken else name] = value
    return columns


def _column(values: list[Any], *, numbers: bool) -> NDArray[Any]:
    """Make a column, of numbers where all values are.

    Args:
        numbers: texts of digits are numbers, as those of classes are.
    """
    if numbers and all(isinstance(value, str) and value.isdecimal() and len(value) < 19 for value in values):
        return np.array([int(value) for value in values], dtype=np.int64)
    plain = all(isinstance(value, int | float) and abs(value) < 2**63 for value in values)
    return np.array(values) if plain else np.array(values, dtype=object)
