"""Lists of the images in a tar, or in a folder of tars: shards of class folders, or one tar a class."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from nas_kd.data.config import IMAGES
from nas_kd.data.formats import is_hidden, is_image_name
from nas_kd.data.shards import PREFIX, splits_of
from nas_kd.data.tree import HIDDEN, Tree, printable
from nas_kd.errors import SettingError

SAMPLE = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)")  # key and what its member is, as WebDataset divides a name
BLOCK = tarfile.BLOCKSIZE


@dataclass
class Listing:
    """What a tar holds.

    Args:
        spans: name of an image to its first byte and its number of bytes.
        said: keys of members that say something of an image, by their suffix.
    """

    spans: dict[str, tuple[int, int]] = field(default_factory=dict)
    said: dict[str, set[str]] = field(default_factory=lambda: {"cls": set(), "json": set()})

    @property
    def flat(self) -> bool:
        """Whether no image lies in a folder."""
        return not any("/" in name for name in self.spans)

    @property
    def sampled(self) -> bool:
        """Whether most images have a class beside them, as WebDataset's samples have; in JSON it may be another's."""
        keys = [parts.group(1) for name in self.spans if (parts := SAMPLE.fullmatch(name))]
        known = self.said["cls"] | (self.said["json"] if self.flat else set())
        return bool(keys) and 2 * sum(key in known for key in keys) > len(keys)


def read_tar(what: str, path: Path) -> Tree:
    """List the images in a tar, and in the tars in it, whose names stand for folders.

    It seeks from header to header: reading the claimed size would never end if a header claims an exabyte. Folders
    that all members share are left out of the names, so that tars of ``cat/1.jpg`` and of ``./pets/cat/1.jpg`` are
    split in the same way.

    Raises:
        SettingError: it is damaged or no tar, a member lies outside the folder that the tar is unpacked in, tars are
            nested more than once, or it holds WebDataset's samples.
    """
    tree = Tree()
    listed = _listed(what, path, tree)
    _refuse_samples(what, path, [listed])
    return _placed([*listed.spans], [path] * len(listed.spans), [*listed.spans.values()], tree, strip=True)


def read_tars(what: str, root: Path, paths: Sequence[Path]) -> Tree:
    """List the images in the tars of a folder.

    Tars of class folders are shards of one data set; their own names count only where they say the split. A tar
    without folders in it is a class, which lies in a split where the folders above all such tars say one.

    Raises:
        SettingError: as `read_tar`; or some have folders and some have none, two have an image of one name, tars of
            single classes are named by splits, or there is no image.
    """
    tree = Tree()
    listed = [_listed(what, path, tree) for path in paths]
    _refuse_samples(what, root, listed)
    full = [(path, found) for path, found in zip(paths, listed, strict=True) if found.spans]
    if not full:
        expected = f"images in {len(paths)} tars; they hold none"
        raise SettingError(what, str(root), expected, "give tars of class folders, or a tar a class")
    flat = {path: found.flat for path, found in full}
    if any(flat.values()) and not all(flat.values()):
        one, other = (next(path for path in flat if flat[path] == kind).relative_to(root) for kind in (True, False))
        expected = f"tars of class folders, or a tar a class; {one} has no folders, {other} has some"
        raise SettingError(what, str(root), expected, "give one kind")
    single = any(flat.values())
    if single and None not in splits_of(root, [root / path.name for path, _ in full]):
        expected = f"a tar a class in folders of splits; {full[0][0].name} names a split itself"
        hint = "put them into folders train and val, or the images into class folders"
        raise SettingError(what, str(root), expected, hint)
    splits = splits_of(root, [path.parent if single else path for path, _ in full])
    names, files, spans = [], [], []
    homes: dict[str, Path] = {}
    for split in dict.fromkeys(splits):
        mine = [one for one, of in zip(full, splits, strict=True) if of == split]
        own = [name for _, found in mine for name in found.spans]
        short = iter(own if single else _strip_common(own))
        for path, found in mine:
            start = f"{split}/" if split else ""
            start += f"{printable(path.stem)}/" if single else ""
            for span in found.spans.values():
                name = f"{start}{next(short)}"
                if homes.setdefault(name, path) != path:
                    where = f"{homes[name].relative_to(root)} and in {path.relative_to(root)}"
                    expected = f"shards of one data set; {name} is in {where}"
                    raise SettingError(what, str(root), expected, "delete one of them, or rename the images of one")
                names.append(name)
                files.append(path)
                spans.append(span)
    return _placed(names, files, spans, tree, strip=False)


@contextmanager
def opened(what: str, path: Path) -> Iterator[tarfile.TarFile]:
    """Open a tar to go through all of it.

    Args:
        what: the setting, for the message.

    Raises:
        SettingError: it is damaged or no uncompressed tar; also where that is found within.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            yield tar
            _check_end(tar)
    except (tarfile.TarError, OSError, EOFError, RecursionError) as error:
        raise SettingError(what, str(path), IMAGES, f"it cannot be read: {error}") from error


def check_inside(what: str, path: Path, name: str) -> None:
    """Refuse a member that would be unpacked elsewhere.

    Raises:
        SettingError: its name begins with a slash or leads upwards.
    """
    if name.startswith("/") or ".." in name.split("/"):
        expected = f"a .tar with names inside its own folder; it has {name!r}"
        raise SettingError(what, str(path), expected, "pack it again: tar -cf NEW.tar -C FOLDER .")


def _check_end(tar: tarfile.TarFile) -> None:
    """Refuse a tar that was gone through and does not end as tars do: an interrupted copy ends anywhere.

    Raises:
        tarfile.TarError: where one would be read as complete otherwise.
    """
    assert tar.fileobj is not None  # it is open
    tar.fileobj.seek(tar.offset)
    block = tar.fileobj.read(BLOCK)
    if block and (len(block) < BLOCK or block.strip(b"\0")):
        raise tarfile.ReadError(f"it is cut off or damaged at byte {tar.offset:,}")


def _listed(what: str, path: Path, tree: Tree) -> Listing:
    """Go through a tar; what is left out is counted in the tree."""
    found = Listing()
    with opened(what, path) as tar:
        _members(what, path, tar, "", 0, found, tree)
    return found


def _refuse_samples(what: str, place: Path, listed: Sequence[Listing]) -> None:
    if any(found.sampled for found in listed):
        expected = "class folders, or a tar a class; these are samples of WebDataset's, with their classes beside them"
        raise SettingError(what, str(place), expected, f"{what}={PREFIX}{place}")


def _members(what: str, path: Path, tar: tarfile.TarFile, inside: str, start: int, found: Listing, tree: Tree) -> None:
    """Collect the first byte and the number of bytes of each image; of equal names the last counts, as in unpacking."""
    for info in tar:
        check_inside(what, path, info.name)
        if not info.isfile():
            continue
        name = printable(PurePosixPath(info.name).as_posix())
        first = start + info.offset_data
        parts = SAMPLE.fullmatch(name)
        if any(is_hidden(part) for part in name.split("/")):
            tree.ignored[HIDDEN] += 1
        elif name.lower().endswith(".tar"):
            if inside:
                expected = f"a .tar of class folders, or of one .tar per class; {info.name!r} is nested too deeply"
                raise SettingError(what, str(path), expected, "unpack the inner ones")
            with tarfile.open(fileobj=tar.extractfile(info), mode="r:") as inner:
                _members(what, path, inner, f"{name[:-4]}/", first, found, tree)
                _check_end(inner)
        elif info.issparse():
            tree.ignored["stored sparsely"] += 1
        elif is_image_name(name):
            found.spans.pop(inside + name, None)
            found.spans[inside + name] = first, info.size
        else:
            tree.ignore(name)
            if parts is not None and (kind := parts.group(2).lower()) in found.said:
                found.said[kind].add(inside + parts.group(1))


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
