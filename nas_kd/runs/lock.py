"""Locks on files: one holder at a time, and a lock ends with the process that holds it."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from nas_kd.errors import SettingError
from nas_kd.runs.files import on_disk

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # file systems that know none


def file_locks() -> bool:
    """Tell whether the system has file locks; Windows has none of this kind."""
    return find_spec("fcntl") is not None


def flock(file: IO[str], *, wait: bool, shared: bool = False) -> bool | None:
    """Lock an open file until it is closed.

    Args:
        file: the file.
        wait: wait for another process that has it locked.
        shared: allow other shared locks.

    Returns:
        Whether the lock is ours; None where there are no locks.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in NO_LOCKS:
            return None
        raise
    return True


@contextmanager
def held(path: Path, *, wait: bool) -> Iterator[bool]:
    """Lock a file, made with its folder when absent.

    Args:
        path: the file.
        wait: wait for another process that has it locked.

    Returns:
        A context that says whether the lock is ours while it lasts.

    Raises:
        SettingError: there are no file locks, or the file cannot be written.
    """
    with ExitStack() as opened:
        with on_disk(path):  # not around what is done under the lock: errors of that are of other files
            path.parent.mkdir(parents=True, exist_ok=True)
            file = opened.enter_context(open(path, "a"))
            ours = flock(file, wait=wait)
        if ours is None:
            expected = "a system with file locks, when several processes share a folder"
            raise SettingError("run", str(path.parent), expected, "use a local disk, on Linux or macOS")
        yield ours
