"""Which tars a setting names, and the splits that their names say."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path

from nas_kd.config.paths import existing
from nas_kd.data.formats import is_hidden
from nas_kd.data.layout import SPLITS, TRAIN
from nas_kd.data.tree import natural
from nas_kd.errors import SettingError

PREFIX = "wds/"  # begins a setting that names WebDataset's samples
SHARDS = "tars of WebDataset's samples: wds/FOLDER, or wds/FOLDER/train-{000..019}.tar"
NUMBERED = re.compile(r"\{(\d+)\.\.(\d+)\}")
PACKED = re.compile(r"\.(tgz|tbz2?|txz|tar\.(gz|bz2|xz|zst))$")
LISTED = re.compile(r"\{([^{}]*,[^{}]*)\}")


def is_samples(given: object) -> bool:
    """Whether a setting names WebDataset's samples."""
    return isinstance(given, str | Path) and str(given)[: len(PREFIX)].lower() == PREFIX


def tars_below(root: Path) -> list[Path]:
    """Return the tars in a folder and in those in it, in natural order; links are followed, hidden ones left out."""
    found: list[Path] = []
    seen: set[str] = set()
    for folder, below, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        below[:] = [] if real in seen else [name for name in below if not is_hidden(name)]
        if real not in seen:
            found += [Path(folder, name) for name in names if name.lower().endswith(".tar") and not is_hidden(name)]
        seen.add(real)
    return sorted(filter(Path.is_file, found), key=lambda path: (natural(path.as_posix()), path.as_posix()))


def tars_of(what: str, given: object) -> set[Path]:
    """Return the tars that a setting of images names, as they are called without links.

    Raises:
        SettingError: it names samples that are not there.
    """
    if is_samples(given):
        return {path.resolve() for path in named_shards(what, str(given)[len(PREFIX) :])[1]}
    if not isinstance(given, str | Path):
        return set()
    path = Path(os.path.expanduser(given))
    return {one.resolve() for one in (tars_below(path) if path.is_dir() else [path])}


def splits_of(root: Path, paths: Sequence[Path]) -> list[str | None]:
    """Return the split that each tar's name, or a folder's above it, says; None of all unless each says one.

    Args:
        root: above which names say nothing.
        paths: of tars, such as ``imagenet-train-0001.tar`` and ``val/07.tar``, or of folders.
    """
    told: list[str | None] = []
    for path in paths:
        words = re.split(r"[^a-z]+", path.relative_to(root).as_posix().lower().removesuffix(".tar"))
        said = {SPLITS[word] for word in words if word in SPLITS}
        told.append(said.pop() if len(said) == 1 else None)
    return told if TRAIN in told and None not in told else [None] * len(told)


def named_shards(what: str, given: str) -> tuple[Path, list[Path]]:
    """Return the tars of samples that a setting names, and the folder above which their names say nothing.

    Args:
        what: the setting, for messages.
        given: what it says after ``wds/``: a folder, a tar, or a pattern with ``*``, ``{a,b}`` or ``{000..019}``.

    Raises:
        SettingError: there are none.
    """
    texts = [os.path.abspath(os.path.expanduser(text)) for text in _expanded(given)] if given else []
    lost = [text for text in texts if "*" not in text and not os.path.exists(text)]
    if lost and len(texts) == 1:
        try:
            existing(what, lost[0], SHARDS)
        except SettingError as error:
            raise SettingError(what, f"{PREFIX}{given}", error.expected, error.hint) from None
    if lost:
        expected = f"{SHARDS}; {len(lost)} of {len(texts)} do not exist, such as {lost[0]}"
        raise SettingError(what, f"{PREFIX}{given}", expected, "check the pattern")
    found: dict[Path, None] = {}
    for text in texts:
        # everything but the star stands for itself
        for one in sorted(glob.glob("*".join(map(glob.escape, text.split("*")))), key=natural):
            found |= dict.fromkeys(tars_below(Path(one)) if os.path.isdir(one) else [Path(one)])
    if not found:
        packed = any(PACKED.search(one.name) for text in texts for one in _inside(text))
        hint = "unpack those that are compressed: no image could be read alone" if packed else "check the path"
        raise SettingError(what, f"{PREFIX}{given}", f"{SHARDS}; none is there", hint)
    folder = len(texts) == 1 and os.path.isdir(texts[0])
    root = texts[0] if folder else os.path.commonpath([path.parent for path in found])
    return Path(root), list(found)


def _inside(text: str) -> list[Path]:
    """Return what is in a folder, or beside a pattern."""
    folder = Path(text if os.path.isdir(text) else os.path.dirname(text))
    return list(folder.iterdir()) if folder.is_dir() else []


def _expanded(text: str) -> list[str]:
    """Write out ``{000..019}`` and ``{a,b}``, as a shell does."""
    found = NUMBERED.search(text)
    if found is not None:
        first, last = found.groups()
        step = 1 if int(first) <= int(last) else -1
        parts = [f"{one:0{len(first)}d}" for one in range(int(first), int(last) + step, step)]
    else:
        found = LISTED.search(text)
        if found is None:
            return [text]
        parts = found.group(1).split(",")
    return [full for part in parts for full in _expanded(text[: found.start()] + part + text[found.end() :])]
