"""Which tars a setting names, and the splits that their names say."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path

from nas_kd.config.paths import existing
from nas_kd.data.formats import is_hidden
from nas_kd.data.layout import SPLITS, TRAIN
from nas_kd.data.tree import natural
from nas_kd.errors import SettingError

PREFIX = "wds/"  # begins the setting
SHARDS = "tars of WebDataset's samples: wds/FOLDER, or wds/FOLDER/train-{000..019}.tar"
NUMBERED = re.compile(r"\{(\d+)\.\.(\d+)\}")


def tars_below(root: Path) -> list[Path]:
    """Return the tars in a folder and in those in it, in natural order; hidden ones are left out."""
    found = [path for path in root.rglob("*.tar") if path.is_file()]
    seen = [path for path in found if not any(is_hidden(part) for part in path.relative_to(root).parts)]
    return sorted(seen, key=lambda path: natural(path.relative_to(root).as_posix()))


def splits_of(root: Path, paths: Sequence[Path]) -> list[str | None]:
    """Return the split that each tar's name, or a folder's above it, says; None of all unless each says one.

    Args:
        root: above which names say nothing.
        paths: of tars, such as ``imagenet-train-0001.tar`` and ``val/07.tar``.
    """
    told: list[str | None] = []
    for path in paths:
        words = re.split(r"[^a-z]+", path.relative_to(root).with_suffix("").as_posix().lower())
        said = {SPLITS[word] for word in words if word in SPLITS}
        told.append(said.pop() if len(said) == 1 else None)
    return told if TRAIN in told and None not in told else [None] * len(told)


def named_shards(what: str, given: str) -> tuple[Path, list[Path]]:
    """Return the tars of samples that a setting names, and the folder above which their names say nothing.

    Args:
        what: the setting, for messages.
        given: what it says after ``wds/``.

    Raises:
        SettingError: there are none.
    """
    texts = [str(Path(text).expanduser()) for text in _expanded(given)]
    if len(texts) == 1 and "*" not in given:
        try:
            root = existing(what, texts[0], SHARDS)
        except SettingError as error:
            raise SettingError(what, f"{PREFIX}{given}", error.expected, error.hint) from None
        found = tars_below(root) if root.is_dir() else [root]
        root = root if root.is_dir() else root.parent
    else:
        found = sorted({Path(one) for text in texts for one in glob.glob(text)}, key=lambda path: natural(str(path)))
        lost = [text for text in texts if "*" not in text and not Path(text).is_file()]
        if lost:
            expected = f"{SHARDS}; {len(lost)} of {len(texts)} do not exist, such as {lost[0]}"
            raise SettingError(what, f"{PREFIX}{given}", expected, "check the numbers")
        root = Path(re.split(r"[*{]", str(Path(given).expanduser()))[0] + "x").parent
    if not found:
        raise SettingError(what, f"{PREFIX}{given}", f"{SHARDS}; none is there", "check the path")
    return root, found


def _expanded(text: str) -> list[str]:
    """Write out ``{000..019}`` and ``{a,b}``, as a shell does."""
    numbered = NUMBERED.search(text)
    if numbered is not None:
        first, last = numbered.groups()
        step = 1 if int(first) <= int(last) else -1
        parts = [f"{one:0{len(first)}d}" for one in range(int(first), int(last) + step, step)]
        return [full for part in parts for full in _expanded(text[: numbered.start()] + part + text[numbered.end() :])]
    listed = re.search(r"\{([^{}]*,[^{}]*)\}", text)
    if listed is not None:
        parts = listed.group(1).split(",")
        return [full for part in parts for full in _expanded(text[: listed.start()] + part + text[listed.end() :])]
    return [text]
