"""Lists of the images in a tar, or in a folder of tars: shards of class folders, or one tar a class."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np

from nas_kd.data.config import IMAGES
from nas_kd.data.formats import is_hidden, is_image_name
from nas_kd.data.shards import PREFIX, splits_of
from nas_kd.data.tree import HIDDEN, Tree, printable
from nas_kd.errors import SettingError

Spans = dict[str, tuple[int, int]]  # name to the first byte and the number of bytes
LABELS = (".cls", ".json")  # what lies beside an image in WebDataset's samples


def read_tar(what: str, path: Path) -> Tree:
    """List the images in a tar, and in the tars in it, whose names stand for folders.

    It seeks from header to header: reading the claimed size would never end if a header claims an exabyte. Folders
    that all members share are left out of the names, so that tars of ``cat/1.jpg`` and of ``./pets/cat/1.jpg`` are
    split in the same way.

    Raises:
        SettingError: it is damaged or no tar, a member lies outside the folder that the tar is unpacked in, or tars are
            nested more than once.
    """
    tree = Tree()
    found: Spans = {}
    with opened(what, path) as tar:
        _members(what, path, tar, "", 0, found, tree)
    return _placed([*found], [path] * len(found), [*found.values()], tree, strip=True)


def read_tars(what: str, root: Path, paths: Sequence[Path]) -> Tree:
    """List the images in the tars of a folder.

    Tars of class folders are shards of one data set; their own names count only where they say the split. Tars without
    folders in them are a class each, with the folders that they lie in before it.

    Raises:
        SettingError: as `read_tar`; or some have folders and some have none, two have an image of one name, or they
            hold WebDataset's samples.
    """
    tree = Tree()
    listed: list[Spans] = []
    for path in paths:
        found: Spans = {}
        with opened(what, path) as tar:
            _members(what, path, tar, "", 0, found, tree)
        listed.append(found)
    full = [(path, found) for path, found in zip(paths, listed, strict=True) if found]
    flat = [path for path, found in full if not any("/" in name for name in found)]
    if flat and any(f"no image by its name ({suffix})" in tree.ignored for suffix in LABELS):
        expected = "tars of class folders, or a tar a class; these have samples of WebDataset's"
        raise SettingError(what, str(root), expected, f"{what}={PREFIX}{root}")
    if flat and len(flat) < len(full):
        folders = next(path for path, _ in full if path not in flat)
        expected = f"tars of class folders, or a tar a class; {flat[0].name} has no folders, {folders.name} has some"
        raise SettingError(what, str(root), expected, "give one kind")
    splits = [None] * len(full) if flat else splits_of(root, [path for path, _ in full])
    names, files, spans = [], [], []
    homes: dict[str, Path] = {}
    for split in dict.fromkeys(splits):
        mine = [one for one, of in zip(full, splits, strict=True) if of == split]
        own = [name for _, found in mine for name in found]
        short = iter(own if flat else _strip_common(own))
        for path, found in mine:
            start = f"{path.relative_to(root).with_suffix('').as_posix()}/" if flat else f"{split}/" if split else ""
            for span in found.values():
                name = f"{start}{next(short)}"
                if homes.setdefault(name, path) != path:
                    expected = f"shards of one data set; {name} is in {homes[name].name} and in {path.name}"
                    raise SettingError(what, str(root), expected, "delete one of them, or rename the images of one")
                names.append(name)
                files.append(path)
                spans.append(span)
    return _placed(names, files, spans, tree, strip=False)


@contextmanager
def opened(what: str, path: Path) -> Iterator[tarfile.TarFile]:
    """Open a tar.

    Args:
        what: the setting, for the message.

    Raises:
        SettingError: it is damaged or no uncompressed tar; also where that is found within.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            yield tar
    except (tarfile.TarError, OSError, EOFError, RecursionError) as error:
        raise SettingError(what, str(path), IMAGES, f"it cannot be read: {error}") from error


def _members(what: str, path: Path, tar: tarfile.TarFile, inside: str, start: int, found: Spans, tree: Tree) -> None:
    """Collect the first byte and the number of bytes of each image; of equal names the last counts, as in unpacking."""
    for info in tar:
        check_inside(what, path, info.name)
        if not info.isfile():
            continue
        name = printable(PurePosixPath(info.name).as_posix())
        first = start + info.offset_data
        if any(is_hidden(part) for part in name.split("/")):
            tree.ignored[HIDDEN] += 1
        elif name.lower().endswith(".tar"):
            if inside:
                expected = f"a .tar of class folders, or of one .tar per class; {info.name!r} is nested too deeply"
                raise SettingError(what, str(path), expected, "unpack the inner ones")
            with tarfile.open(fileobj=tar.extractfile(info), mode="r:") as inner:
                _members(what, path, inner, f"{name[:-4]}/", first, found, tree)
        elif info.issparse():
            tree.ignored["stored sparsely"] += 1
        elif is_image_name(name):
            found.pop(inside + name, None)
            found[inside + name] = first, info.size
        else:
            tree.ignore(name)


def check_inside(what: str, path: Path, name: str) -> None:
    """Refuse a member that would be unpacked elsewhere.

    Raises:
        SettingError: its name begins with a slash or leads upwards.
    """
    if name.startswith("/") or ".." in name.split("/"):
        expected = f"a .tar with names inside its own folder; it has {name!r}"
        hint = "pack the class folders again: tar -cf images.tar -C FOLDER ."
        raise SettingError(what, str(path), expected, hint)


def _placed(
    names: list[str], files: Sequence[Path], spans: Sequence[tuple[int, int]], tree: Tree, *, strip: bool
) -> Tree:
    """Put what was found into a tree of natural order."""
    tree.names = _strip_common(names) if strip and names else names
    tree.files = list(map(str, files))
    tree.spans = np.array(spans, dtype=np.int64).reshape(-1, 2)
    tree.folders = sorted({name.split("/")[0] for name in tree.names if "/" in name})
    return tree.ordered()


def _strip_common(names: Sequence[str]) -> list[str]:
    """Strip the folders that all members share."""
    parts = [name.split("/") for name in names]
    first = parts[0]
    depth = 0
    shortest = min(len(part) for part in parts) - 2  # the class folder and the file remain
    while depth < shortest and all(part[depth] == first[depth] for part in parts):
        depth += 1
    return ["/".join(part[depth:]) for part in parts]
