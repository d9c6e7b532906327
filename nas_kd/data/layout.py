"""What the folders of images mean: splits and classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nas_kd.data.tree import natural
from nas_kd.errors import SettingError

TRAIN = "train"
VAL = "val"
TEST = "test"
# names of splits in lower case
SPLITS = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VAL,
    "valid": VAL,
    "validation": VAL,
    "test": TEST,
    "testing": TEST,
    "eval": TEST,
    "evaluation": TEST,
}


def split_folders(what: str, origin: str, names: Sequence[str], test: bool) -> dict[str, str]:
    """Tell which folders right under the root are splits that hold class folders.

    A folder called train is a class where it holds images itself, or where the folders beside it are no splits.

    Args:
        what: the setting, for messages.
        names: of the images below the root.
        test: the root is that of test images, which need no training images beside them.

    Returns:
        train, val and test to their folders; empty where the folders are classes.

    Raises:
        SettingError: it cannot be told.
    """
    inner: dict[str, set[str]] = {}  # folder to the folders in it; "" stands for images of its own
    for name in names:
        parts = name.split("/")
        inner.setdefault(parts[0] if len(parts) > 1 else "", set()).add(parts[1] if len(parts) > 2 else "")
    found: dict[str, str] = {}
    for folder, below in sorted(inner.items()):
        split = SPLITS.get(folder.lower())
        if split is None or "" in below:
            continue
        if split in found:
            expected = f"one folder of each split; {found[split]} and {folder} both say {split}"
            raise SettingError(what, origin, expected, "merge or rename them, or give one of them")
        found[split] = folder
    # folders of splits without class folders, such as unlabelled test images, are left out beside training images
    others = [f for f in inner if f not in found.values() and not (TRAIN in found and f.lower() in SPLITS)]
    if "" in others or not found:
        return {}
    if len(found) == 1 and others:
        (folder,) = found.values()
        alike = [other for other in others if other in inner[folder] or inner[other] & inner[folder]]
        if alike or len(inner[folder]) > 1:
            expected = f"class folders, or splits; {folder} and {(alike or others)[0]} could be either"
            raise SettingError(what, origin, expected, f"rename {folder}, or put what is beside it into a folder train")
        return {}
    if TRAIN not in found and not test and len(found) > 1:
        expected = f"a folder of training images beside {' and '.join(found.values())}"
        raise SettingError(what, origin, expected, "name it train, or give the folder of class folders")
    return found if TRAIN in found or test else {}


def splits_first(names: Sequence[str]) -> list[str]:
    """Rename ``CLASS/train/image`` to ``train/CLASS/image`` where all images lie in splits within classes."""
    parts = [name.split("/") for name in names]
    if not all(len(part) > 2 and part[1].lower() in SPLITS for part in parts):
        return list(names)
    if TRAIN not in {SPLITS[part[1].lower()] for part in parts} or len({part[0] for part in parts}) < 2:
        return list(names)
    return ["/".join([SPLITS[part[1].lower()], part[0], *part[2:]]) for part in parts]


def classes_of(what: str, origin: str, names: Sequence[str], leaf: bool) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return class numbers (N,) and class names of images by their folders.

    Args:
        what: the setting, for messages.
        names: of the images below the root.
        leaf: a class is the folder that holds its images, not the folder right under the root.

    Raises:
        SettingError: images lie outside class folders, or there is one class.
    """
    parts = [name.split("/") for name in names]
    expected = "at least two class folders with images"
    if min(map(len, parts)) < 2:
        raise SettingError(what, origin, expected, "images outside class folders: put each class into a folder")
    found = [part[-2] if leaf else part[0] for part in parts]
    classes = tuple(sorted(set(found), key=lambda name: (natural(name), name)))
    if len(classes) < 2:
        below = sorted({part[1] for part in parts if len(part) > 2})
        hint = f"one class, {classes[0]!r}: put each class into a folder"
        if len(below) > 1 and not leaf:
            some = ", ".join(below[:3]) + (" ..." if len(below) > 3 else "")
            hint = f"one class, {classes[0]!r}; if its folders {some} are the classes, give that folder, or set "
            hint += "data.class_folder=leaf"
        raise SettingError(what, origin, expected, hint)
    number = {name: at for at, name in enumerate(classes)}
    return np.array([number[name] for name in found], dtype=np.int64), classes
