"""Files that anyone may have written: of what kind and how large they are is looked at before they are read."""

from __future__ import annotations

import codecs
import json
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

from nas_kd.errors import SettingError

DOCUMENT = 2**24  # bytes of JSON; a megabyte of nested lists takes twenty in memory
TABLE = 2**30  # bytes of a CSV, or of a journal of trials
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def check_file(path: Path, most: int, *, field: str = "run", hint: str = "") -> int:
    """Check that a path is a file of a size that can be read: a pipe has no end, a sparse file terabytes of zeros.

    Args:
        most: bytes.
        field: the setting that names it, for the message.
        hint: how to mend it.

    Returns:
        Its size in bytes.

    Raises:
        SettingError: it is none, is larger, or cannot be looked at.
        FileNotFoundError: there is nothing.
    """
    try:
        about = path.stat()
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise _unread(field, path, error, hint) from error
    if not stat.S_ISREG(about.st_mode):
        raise SettingError(field, str(path), "a file; this is a folder, a pipe or a device", hint or "check the path")
    if about.st_size > most:
        expected = f"a file of at most {most:,} bytes; this has {about.st_size:,}"
        raise SettingError(field, str(path), expected, hint or "check the path")
    return about.st_size


def read_bytes(path: Path, most: int = DOCUMENT, *, field: str = "run", hint: str = "") -> bytes:
    """Read a whole file; arguments and errors as `check_file`."""
    check_file(path, most, field=field, hint=hint)
    try:
        with open(path, "rb") as file:
            return file.read(most)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unread(field, path, error, hint) from error


def read_text(path: Path, most: int = DOCUMENT, *, field: str = "run", hint: str = "") -> str:
    """Read a whole text, UTF-8 or what its byte-order mark says, whatever the locale; see `check_file`.

    Raises:
        SettingError: as `check_file`, or it is no text.
        FileNotFoundError: there is nothing.
    """
    content = read_bytes(path, most, field=field, hint=hint)
    try:
        return decoded(content)
    except UnicodeDecodeError as error:
        raise SettingError(field, str(path), "a text in UTF-8", hint or "save it as UTF-8") from error


def decoded(content: bytes) -> str:
    """Decode a text as UTF-8, or as its byte-order mark says.

    Raises:
        UnicodeDecodeError: it is none.
    """
    return content.decode(next((name for mark, name in MARKS.items() if content.startswith(mark)), "utf-8"))


def parsed(text: str | bytes) -> Any:
    """Parse JSON.

    Raises:
        ValueError: it is none; also where it is nested too deeply, or holds a number of thousands of digits.
    """
    try:
        return json.loads(decoded(text) if isinstance(text, bytes) else text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def memory() -> int:
    """Return the memory of this machine in bytes, or of the container that this process is in."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")] if hasattr(os, "sysconf") else [2**40]
    with suppress(OSError, ValueError):  # "max" is no number
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8")))
    return min(limits)


def _unread(field: str, path: Path, error: Exception, hint: str) -> SettingError:
    why = getattr(error, "strerror", None) or str(error)
    return SettingError(field, str(path), f"a file that can be read ({why})", hint or "check the path and its rights")
