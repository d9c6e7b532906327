"""Sources of images and texts, by the setting that names them, and which splits are given apart."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from nas_kd.config.paths import existing
from nas_kd.data.columns import sources
from nas_kd.data.config import FILES, IMAGES, TEXT_FILES, TEXTS, DataConfig
from nas_kd.data.fileless import Arrays, arrays, digits, torchvision
from nas_kd.data.found import Found
from nas_kd.data.layout import classes_of, split_folders, splits_first
from nas_kd.data.samples import read_samples
from nas_kd.data.shards import PREFIX, is_samples, tars_below, tars_of
from nas_kd.data.source import FileSource, Source, parted_groups
from nas_kd.data.table import PAIR, TEXT, Table, read_csv, read_hfds, read_lines, read_parquet
from nas_kd.data.tars import read_tar, read_tars
from nas_kd.data.tree import Tree, read_folder
from nas_kd.errors import SettingError

Images = str | Path | Arrays


@dataclass
class Opened:
    """Images of one setting.

    Args:
        parts: train, val and test, as far as there are some.
        ignored: why files were left out, and how many.
        notes: how folders were read, where that is not evident.
    """

    parts: dict[str, Source]
    ignored: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


def given_apart(train: Images, test: Images | None, config: DataConfig) -> tuple[dict[str, Source], Found]:
    """Open the images: train, and those of select and test that are given apart; nothing is decoded.

    Test images are those of ``test``, else those that train has of its own, else its validation images. Where there
    are other test images, validation images are those of select.

    Raises:
        SettingError: there is no such data set, it has no classes, or the parts have different ones.
    """
    opened = _open("data.train", train, config, test)
    ignored = opened.ignored.copy()
    notes = list(opened.notes)
    sources = {"train": opened.parts["train"]}
    val = opened.parts.get("val")
    held = opened.parts.get("test")
    if test is not None:
        given = _open("data.test", test, config, None)
        ignored += given.ignored
        notes += given.notes
        if held is not None:
            notes.append(f"{len(held)} test images of data.train are not used, as data.test is given")
        held = given.parts.get("test") or given.parts.get("val") or given.parts["train"]
        if val is not None and (val.origin, val.names) == (held.origin, held.names):
            val = None
    elif held is not None:
        notes.append(f"test images are the {len(held)} that data.train has of its own")
    elif val is not None:
        notes.append(f"test images are the {len(val)} validation images of data.train, as it has no others")
        held = val
        val = None
    if val is not None:
        notes.append(f"select is the {len(val)} validation images of data.train, no share of the training images")
        sources["select"] = val
    if held is not None:
        sources["test"] = held
    for name, source in sources.items():
        if name != "train":
            _check_classes("data.train" if test is None or name == "select" else "data.test", sources["train"], source)
    parted = parted_groups(sources)
    if parted and config.duplicates == "stop":
        name, splits = next(iter(parted.items()))
        found = f"{len(parted)} groups have images in several splits, such as {name!r} in {' and '.join(splits)}"
        hint = "correct the splits, name another column by data.group, or set data.duplicates=keep"
        raise SettingError("data.group", found, "the images of a group, such as a patient's, in one split", hint)
    if parted:
        name, splits = next(iter(parted.items()))
        notes.append(f"{len(parted)} groups have images in several splits, such as {name!r} in {' and '.join(splits)}")
    return sources, Found(ignored=tuple(ignored.items()), notes=tuple(notes))


def _check_classes(setting: str, pool: Source, held: Source) -> None:
    if pool.kind != held.kind:
        expected = f"{pool.kind}, as the labels of data.train"
        raise SettingError(setting, f"{held.origin}: {held.kind}", expected, "set data.kind")
    if pool.classes == held.classes:
        return
    missing = [name for name in pool.classes if name not in held.classes]
    unknown = [name for name in held.classes if name not in pool.classes]
    found = "; ".join(
        f"{what} {', '.join(map(repr, names[:5]))}{' ...' if len(names) > 5 else ''}"
        for what, names in (("without", missing), ("with the unknown", unknown))
        if names
    )
    raise SettingError(
        setting,
        f"{held.origin} {found or 'in another order'}",
        f"the {len(pool.classes)} classes of data.train, by the same names",
        "rename or add class folders",
    )


def _open(setting: str, what: Images, config: DataConfig, other: Images | None) -> Opened:
    if config.tokenizer is not None:
        return _open_texts(setting, what, config)
    if isinstance(what, tuple):
        _no_columns(setting, config, "tensors")
        return Opened({"train": arrays(setting, what, config)})
    if what == "digits":
        _no_columns(setting, config, "digits")
        return Opened({"train": digits(setting)})
    prefix, slash, rest = str(what).partition("/")
    root = str(Path(config.root).expanduser())
    split = config.test_split if setting == "data.test" else config.train_split
    if slash and prefix.lower() == "torch":
        _no_columns(setting, config, str(what))
        return Opened({"train": torchvision(setting, str(what), split, root, config.download)})
    if slash and prefix.lower() == "hfds":
        return _table(setting, read_hfds(setting, rest, split, root), config)
    if is_samples(what):
        held = set() if other is None else tars_of("data.test", other)
        named = {name for name in (config.group, config.split_column, config.image) if name is not None}
        given = str(what)[len(PREFIX) :]
        return _table(setting, read_samples(setting, given, config.label_columns, named, held), config)
    if slash and prefix.lower() in ("hfids", "tfds"):
        raise SettingError(setting, what, IMAGES, "streamed data sets have no fixed order: save it as class folders")
    path = existing(setting, Path(str(what)), IMAGES)
    suffix = path.suffix.lower()
    if not path.is_file():
        return _folders(setting, path, _tree(setting, path, other), config)
    if suffix == ".tar":
        return _folders(setting, path, read_tar(setting, path), config)
    if suffix not in FILES:
        raise SettingError(setting, str(path), IMAGES, "unpack it, or create an uncompressed .tar of class folders")
    table = read_csv(setting, path, (config.image,)) if suffix in (".csv", ".tsv") else read_parquet(setting, path)
    return _table(setting, table, config)


def _open_texts(setting: str, what: Images, config: DataConfig) -> Opened:
    prefix, slash, rest = str(what).partition("/")
    if slash and prefix.lower() == "hfds":
        split = config.test_split if setting == "data.test" else config.train_split
        return _table(setting, read_hfds(setting, rest, split, str(Path(config.root).expanduser())), config)
    path = existing(setting, Path(str(what)), TEXTS)
    suffix = path.suffix.lower()
    if suffix not in TEXT_FILES or not path.is_file():
        raise SettingError(setting, str(path), TEXTS, "save the texts as a table")
    if suffix == ".jsonl":
        return _table(setting, read_lines(setting, path), config)
    if suffix in (".csv", ".tsv"):
        labels = {name.strip().lower() for name in config.label_columns}  # which keep their numbers
        known = [name for name in (*TEXT, *PAIR) if name not in labels]
        return _table(setting, read_csv(setting, path, (config.text, config.text_pair), known), config)
    return _table(setting, read_parquet(setting, path), config)


def _table(setting: str, table: Table, config: DataConfig) -> Opened:
    parts, told = sources(setting, table, config)
    return Opened(parts, notes=[told])


def _no_columns(setting: str, config: DataConfig, origin: str, folders: bool = False) -> None:
    """Refuse settings of tables where the training images are in none."""
    if setting == "data.train":
        config.check_columns(origin, folders=folders)


def _tree(setting: str, path: Path, other: Images | None) -> Tree:
    """List the images of a folder; where it has none, those in its tars; without those of the test."""
    tree = read_folder(setting, path, Path(other) if isinstance(other, str | os.PathLike) else None)
    tars = [] if tree.names else tars_below(path)
    if not tars:
        return tree
    held = set() if other is None else tars_of("data.test", other)
    found = read_tars(setting, path, [one for one in tars if one.resolve() not in held] or tars)
    found.ignored += Counter({why: count for why, count in tree.ignored.items() if "(.tar)" not in why})
    return found


def _folders(setting: str, path: Path, tree: Tree, config: DataConfig) -> Opened:
    """Make sources of the images below a folder or in a tar, by the folders that they are in."""
    _no_columns(setting, config, str(path), folders=True)
    if not tree.folders and not path.is_file():
        files = [child.suffix.lower() for child in path.iterdir()]
        hint = "put the images of each class into a folder"
        for suffix in FILES:
            if suffix in files:
                hint = f"give the {suffix} itself"
        raise SettingError(
            setting, str(path), "a folder of class folders; this has no sub-folder", hint + _of(tree.ignored)
        )
    if not tree.names:
        hint = "it holds no image: create one folder per class"
        if tree.folders:
            hint = f"class {tree.folders[0]!r} has 0 images: add images or delete the folder"
        raise SettingError(setting, str(path), IMAGES, hint + _of(tree.ignored))
    names = splits_first(tree.names)
    if names != tree.names:
        folders = list(dict.fromkeys("/".join(name.split("/")[:depth]) for name in names for depth in (1, 2)))
        tree = replace(tree, names=names, folders=folders).ordered()
    found = split_folders(setting, str(path), tree.names, setting == "data.test")
    full = {"/".join(name.split("/")[:depth]) for name in tree.names for depth in (1, 2)}
    for folder in tree.folders:
        above, _, below = folder.rpartition("/")
        if folder not in full and above in (found.values() if found else ("",)):
            hint = f"class {below!r} has 0 images: add images or delete the folder{_of(tree.ignored)}"
            raise SettingError(setting, str(path), "images in every class folder", hint)
    opened = Opened({}, tree.ignored)
    for split, folder in found.items():
        start = f"{folder}/"
        rows = [at for at, name in enumerate(tree.names) if name.startswith(start)]
        opened.parts[split] = _source(setting, path / folder, tree, rows, len(start), config)
    if found:
        beside = {name.split("/")[0] for name in tree.names} - {*found.values()}
        for folder in sorted(beside):
            opened.ignored[f"in {folder}/, which is no split of class folders"] += sum(
                n.startswith(f"{folder}/") for n in tree.names
            )
        return opened
    opened.parts["train"] = _source(setting, path, tree, list(range(len(tree.names))), 0, config)
    if any(name.count("/") > 1 for name in tree.names):
        rule = "that hold the images" if config.class_folder == "leaf" else f"right under {path}"
        others = "data.class_folder is another rule, data.group=folder keeps the images of a deeper one in one split"
        opened.notes.append(f"classes are the folders {rule}; there are deeper ones ({others})")
    return opened


def _of(ignored: Counter[str]) -> str:
    return f"; ignored: {', '.join(f'{count} {why}' for why, count in ignored.items())}" if ignored else ""


def _source(setting: str, path: Path, tree: Tree, rows: list[int], start: int, config: DataConfig) -> FileSource:
    names = [tree.names[row][start:] for row in rows]
    labels, classes = classes_of(setting, str(path), names, config.class_folder == "leaf")
    groups = None
    if config.group == "folder":
        groups = np.array([name.rpartition("/")[0] if name.count("/") > 1 else name for name in names])
    files = [tree.files[row] for row in rows]
    spans = None if tree.spans is None else tree.spans[rows]
    return FileSource(files, spans, setting, str(path), names, labels, classes, groups=groups)
