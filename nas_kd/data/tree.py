"""Lists of the images in a folder, without decoding any."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_kd.data.formats import is_hidden, is_image_name
from nas_kd.errors import SettingError
from nas_kd.runs.run import is_run

HIDDEN = "hidden"
RUN = "run folder of nas_kd"


@dataclass
class Tree:
    """Images by name.

    Args:
        names: paths below the root, with ``/``, in natural order.
        files: the file that holds each.
        spans: (N, 2) first byte and number of bytes in it; None for whole files.
        ignored: why files are left out, and how many; a hidden folder counts as one.
        folders: the folders right under the root and those in them, with images or without.
    """

    names: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    spans: NDArray[np.int64] | None = None
    ignored: Counter[str] = field(default_factory=Counter)
    folders: list[str] = field(default_factory=list)

    def ordered(self) -> Tree:
        """Return the tree in natural order: 9.png before 10.png."""
        order = sorted(range(len(self.names)), key=lambda at: (natural(self.names[at]), self.names[at]))
        spans = None if self.spans is None else self.spans[order]
        names = [self.names[at] for at in order]
        return Tree(names, [self.files[at] for at in order], spans, self.ignored, sorted(self.folders, key=natural))

    def ignore(self, name: str) -> None:
        """Count a file that is left out."""
        suffix = os.path.splitext(name)[1].lower()
        self.ignored[HIDDEN if is_hidden(name) else f"no image by its name ({suffix or 'no suffix'})"] += 1


def natural(name: str) -> list[Any]:
    """Return a key that sorts numbers in names by their value."""
    return [int(part) if at % 2 else part for at, part in enumerate(re.split(r"([0-9]+)", name.lower()))]


def printable(name: str) -> str:
    """Write what is no text in a file's name, or would end a line, as its code."""
    name = os.fsencode(name).decode("utf-8", "backslashreplace")
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda found: found[0].encode("unicode_escape").decode(), name)


def read_folder(what: str, root: Path, without: Path | None = None) -> Tree:
    """List the images below a folder; links are followed, folders of runs are left out and counted.

    Args:
        what: the setting, for messages.
        without: a folder below it that is left out, such as that of the test images.

    Raises:
        SettingError: a link leads in a circle, or a file with an image's name is none.
    """
    tree = Tree()
    homes: set[str] = set()  # folders that hold run folders
    other = without.resolve() if without is not None else None
    todo = [(str(root), "", frozenset({root.resolve()}))]
    while todo:
        folder, inside, above = todo.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_hidden(entry.name):
                    tree.ignored[HIDDEN] += 1
                elif _is_folder(entry):
                    real = Path(entry.path).resolve()
                    if real in above:
                        raise SettingError(what, entry.path, "folders without circular links", "delete the link")
                    if real == other:
                        continue
                    if is_run(Path(entry.path)):
                        tree.ignored[RUN] += 1
                        homes.add(inside.rstrip("/"))
                        continue
                    below = f"{inside}{printable(entry.name)}"
                    if below.count("/") < 2:
                        tree.folders.append(below)
                    todo.append((entry.path, f"{below}/", above | {real}))
                elif not is_image_name(entry.name):
                    tree.ignore(entry.name)
                elif not os.path.isfile(entry.path):
                    expected = "readable images; this is a broken link, a pipe or a device"
                    raise SettingError(what, entry.path, expected, "replace or delete it")
                else:
                    tree.names.append(f"{inside}{printable(entry.name)}")
                    tree.files.append(entry.path)
    tree.folders = [
        folder
        for folder in tree.folders
        if folder not in homes or any(name.startswith(f"{folder}/") for name in tree.names)
    ]
    return tree.ordered()


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
