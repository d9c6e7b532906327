"""Sources of images: digits, tensors, class folders, tars and the other data sets that timm reads."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas_kd.config.paths import existing
from nas_kd.data.archive import check_tar
from nas_kd.data.config import IMAGES, Kind
from nas_kd.data.labels import columns_of, labels_of
from nas_kd.data.source import ArraySource, ReaderSource, Source, VisionSource
from nas_kd.errors import SettingError

TRAIN_FOLDERS = ("train", "training")
TEST_FOLDERS = ("test", "val", "valid", "validation", "eval", "evaluation")
Arrays = tuple[Any, Any]


def open_source(
    field: str,
    what: str | Path | Arrays,
    test: bool,
    split: str,
    root: str,
    download: bool,
    kind: Kind | None = None,
) -> Source:
    """Open a data set and list its names and labels, without decoding; settings as in `nas_kd.load_data`.

    Raises:
        SettingError: there is no such data set, or it has no classes.
    """
    if isinstance(what, tuple):
        return _arrays(field, what, kind)
    if what == "digits":
        return _digits(field)
    prefix, slash, _ = str(what).partition("/")
    if slash and prefix.lower() in ("torch", "hfds", "hfids", "tfds", "wds"):
        opener = {"torch": _torchvision, "hfds": _hfds}.get(prefix.lower())
        if opener is None:
            raise SettingError(field, what, IMAGES, "streamed data sets have no fixed order: save it as class folders")
        return opener(field, str(what), split, root, download)
    return _files(field, Path(what), test)


def _names(labels: NDArray[np.int64], classes: tuple[str, ...]) -> list[str]:
    """Name images without files by class and running number."""
    return [f"{classes[label]}/{i:06d}" for i, label in enumerate(labels.tolist())]


def _digits(field: str) -> ArraySource:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = torch.from_numpy(np.rint(bunch.images * (255 / 16)).astype(np.uint8))[:, None]  # (1797, 1, 8, 8)
    labels = bunch.target.astype(np.int64)
    classes = tuple(map(str, bunch.target_names))
    return ArraySource(pixels, field, "digits", _names(labels, classes), labels, classes)


def _arrays(field: str, pair: Arrays, kind: Kind | None) -> ArraySource:
    x = torch.as_tensor(pair[0]).cpu()
    y = columns_of(pair[1].cpu() if isinstance(pair[1], Tensor) else pair[1])
    rows = len(next(iter(y.values()), ()))
    shapes = f"x {tuple(x.shape)} {x.dtype}, y ({rows}, {len(y)})"
    if x.ndim != 4 or x.dtype != torch.uint8 or len(x) != rows or not rows:
        raise SettingError(field, shapes, "x (N, C, H, W) uint8 and y (N,) or (N, L)", "convert the tensors")
    if not all(x.shape[1:]):
        raise SettingError(field, shapes, "images of at least one channel and pixel", "convert the tensors")
    labels = labels_of(field, y, kind, numbered=True)
    names = [f"{i:06d}" for i in range(rows)]
    if labels.kind == "classes":
        names = _names(labels.y, labels.names)
    return ArraySource(x, field, "tensors", names, labels.y, labels.names, labels.kind)


def _files(field: str, path: Path, test: bool) -> ReaderSource:
    from timm.data.dataset_factory import create_dataset

    path = existing(field, path, IMAGES)
    root = path
    tar = path.is_file()
    if tar and path.suffix.lower() != ".tar":
        raise SettingError(field, str(path), IMAGES, "unpack it, or create an uncompressed .tar of class folders")
    if not tar:
        root = _split_folder(path, test)
        _check_folder(field, root)
    try:
        # search_split would mistake a class called "train" for the training split
        if tar:
            check_tar(field, root)
        # timm stores the index of a large tar as a pickle next to it: neither written nor read here
        index: dict[str, Any] = {"cache_tarinfo": False} if tar else {}
        reader = create_dataset("", root=str(root), search_split=False, **index).reader
    except (tarfile.TarError, OSError, EOFError, RecursionError) as error:
        raise SettingError(field, str(root), IMAGES, f"it cannot be read: {error}") from error
    except SettingError:
        raise
    except (ValueError, RuntimeError) as error:  # raised by timm when it finds no image
        raise SettingError(field, str(root), IMAGES, "it holds no images: create one folder per class") from error
    by_name: dict[str, int] = reader.class_name_to_idx if tar else reader.class_to_idx
    classes = tuple(sorted(by_name, key=lambda name: by_name[name]))
    if "" in classes or len(classes) < 2:
        found = "images outside class folders" if "" in classes else f"one class, {classes[0]!r}"
        raise SettingError(
            field,
            str(root),
            "at least two class folders with images",
            f"{found}: put each class into a folder",
        )
    names = [Path(name).as_posix() for name in reader.filenames()]
    if tar:
        labels = np.asarray(reader.targets, dtype=np.int64)
        names = _strip_common(names)  # so that tars of cat/1.jpg and of ./pets/cat/1.jpg are split in the same way
    else:
        labels = np.array([target for _, target in reader.samples], dtype=np.int64)
    return ReaderSource(
        reader,
        field,
        str(root),
        names,
        labels,
        classes,
        reopen=(open_source, (field, path, test, "train", "", False)),
    )


def _split_folder(path: Path, test: bool) -> Path:
    """Return the folder of the split in ``path/train/CLASS/...``, or ``path`` if it holds the classes."""
    for name in TEST_FOLDERS if test else TRAIN_FOLDERS:
        folder = path / name
        if folder.is_dir() and any(child.is_dir() for child in folder.iterdir()):
            return folder
    return path


def _check_links(field: str, root: Path, suffixes: set[str]) -> None:
    """Raise SettingError for circular links, and for pipes or broken links named like images."""
    todo = [(root, frozenset({root.resolve()}))]
    while todo:
        folder, above = todo.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                if _is_folder(entry):
                    real = Path(entry.path).resolve() if entry.is_symlink() else None
                    if real in above:
                        hint = "delete the link"
                        raise SettingError(field, entry.path, "folders without circular links", hint)
                    todo.append((Path(entry.path), above | {real or Path(entry.path).resolve()}))
                elif os.path.splitext(entry.name)[1].lower() in suffixes and not os.path.isfile(entry.path):
                    expected = "readable images; this is a broken link, a pipe or a device"
                    raise SettingError(field, entry.path, expected, "replace or delete it")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _check_folder(field: str, root: Path) -> None:
    """Raise SettingError if timm would find fewer classes than there are folders."""
    from timm.data.readers.img_extensions import get_img_extensions

    suffixes = get_img_extensions(as_set=True)
    folders = sorted(child for child in root.iterdir() if child.is_dir() and not child.name.startswith("."))
    if not folders:
        tars = any(child.suffix == ".tar" for child in root.iterdir())
        hint = "pack the per-class tars into one .tar" if tars else "put the images of each class into a folder"
        raise SettingError(field, str(root), "a folder of class folders; this has no sub-folder", hint)
    _check_links(field, root, suffixes)
    for folder in folders:
        if not any(child.suffix.lower() in suffixes and child.is_file() for child in folder.rglob("*")):
            raise SettingError(
                field,
                str(root),
                "images in every class folder",
                f"class {folder.name!r} has 0 images: add images or delete the folder",
            )


def _strip_common(names: list[str]) -> list[str]:
    """Strip the folders that all members share."""
    parts = [name.split("/") for name in names]
    first = parts[0]
    depth = 0
    shortest = min(len(part) for part in parts) - 2  # the class folder and the file remain
    while depth < shortest and all(part[depth] == first[depth] for part in parts):
        depth += 1
    return ["/".join(part[depth:]) for part in parts]


def _torchvision(field: str, name: str, split: str, root: str, download: bool) -> VisionSource:
    from timm.data.dataset_factory import create_dataset

    try:
        dataset: Any = create_dataset(name, root=root, split=split, download=download)
    except AssertionError as error:
        raise SettingError(field, name, f"a torchvision data set known to timm ({error})", "check the name") from error
    except (RuntimeError, OSError) as error:
        hint = "set data.root to the folder that holds it, or data.download=true"
        raise SettingError(field, name, f"a data set in {root} ({error})", hint) from error
    if not hasattr(dataset, "targets") or not hasattr(dataset, "classes"):
        raise SettingError(field, name, "a classification data set", "save it as class folders")
    labels = np.asarray(dataset.targets, dtype=np.int64)
    classes = tuple(map(str, dataset.classes))
    return VisionSource(
        dataset,
        field,
        name,
        _names(labels, classes),
        labels,
        classes,
        reopen=(open_source, (field, name, False, split, root, False)),
    )


def _hfds(field: str, name: str, split: str, root: str, download: bool) -> ReaderSource:
    from timm.data.dataset_factory import create_dataset

    try:
        reader: Any = create_dataset(name, root=root, split=split).reader
    except ImportError as error:
        raise SettingError(field, name, "the package 'datasets' installed", "pip install datasets") from error
    except (ValueError, KeyError, OSError) as error:
        hint = "check the name and data.train_split / data.test_split"
        raise SettingError(field, name, f"a data set with a split {split!r} ({error})", hint) from error
    labels = np.asarray(reader.dataset[reader.label_key], dtype=np.int64)
    by_name: dict[str, int] = reader.class_to_idx or {str(c): c for c in range(int(labels.max()) + 1)}
    classes = tuple(sorted(by_name, key=lambda key: by_name[key]))
    return ReaderSource(
        reader,
        field,
        name,
        _names(labels, classes),
        labels,
        classes,
        reopen=(open_source, (field, name, False, split, root, False)),
    )
