"""Nothing below a run folder is written, emptied or deleted through a link: what a link leads to is not the run's."""

from __future__ import annotations

import os
import re
import shutil
import threading
from pathlib import Path
from typing import BinaryIO

from nas_kd.errors import SettingError

# what nas_kd writes under another name first: .NAME.ID.tmp, and .student.ID.old while a student is replaced;
# .transformers is the folder beside that of a text student
PART = re.compile(
    r"\.(probe|transformers|student[\w.-]*|[0-9a-f]{12}|[\w.+-]+\.(json|csv|yaml|pt|safetensors|npy|svg|html|md))"
    r"\.[0-9]+\.(tmp|old)"
)


def part_of(path: Path, end: str = "tmp") -> Path:
    """Return the name under which a file or folder is written before it is renamed.

    It has the kernel's number of this thread, as other threads of the process write status.json at the same time.

    Args:
        end: tmp for what is new, old for what it replaces.
    """
    return path.with_name(f".{path.name}.{threading.get_native_id()}.{end}")


def is_part(name: str) -> bool:
    """Tell whether a file name is one of `part_of`, of any thread; other hidden files are the user's."""
    return PART.fullmatch(name) is not None


def remove(path: Path) -> None:
    """Delete a file, or a folder with all that is in it, if it is there; of a link the link itself."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def create(path: Path) -> BinaryIO:
    """Open a new file for writing, in the place of what has its name."""
    path.unlink(missing_ok=True)
    return open(path, "xb")


def not_through(path: str | os.PathLike[str], flags: int) -> int:
    """Open a file that is no link: the ``opener=`` of `open`.

    Raises:
        SettingError: the path is a link.
    """
    _refuse(Path(path))
    # the flag also covers a link that comes between the two; Windows has it not
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def refuse_links(folder: Path) -> None:
    """Refuse a folder with links, pipes or devices anywhere below it; the folder itself may be a link.

    Raises:
        SettingError: naming the first.
    """
    left = [str(folder)]
    while left:
        try:
            with os.scandir(left.pop()) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    if entry.is_dir(follow_symlinks=False):
                        left.append(entry.path)
                    elif not entry.is_file(follow_symlinks=False):
                        _refuse(Path(entry.path))
        except (FileNotFoundError, NotADirectoryError, PermissionError):  # another command works in it, or it is closed
            continue


def _refuse(path: Path) -> None:
    """Raise for what is neither a file nor a folder nor absent."""
    if path.is_symlink():
        what = f"a link to {os.readlink(path)}"
        hint = "delete the link, or put what it leads to in its place; only the run folder itself may be a link"
    elif path.exists() and not path.is_file() and not path.is_dir():
        what, hint = "a pipe, socket or device", "delete it"
    else:
        return
    expected = f"a file or folder of its own: this is {what}, and nothing in a run is written through one"
    raise SettingError("run", str(path), expected, hint)
