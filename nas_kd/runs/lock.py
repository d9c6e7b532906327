"""File locks: one holder at a time; a lock ends with the process that holds it."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from nas_kd.errors import SettingError
from nas_kd.runs.files import on_disk
from nas_kd.runs.links import not_through

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # file systems without locks


def file_locks() -> bool:
    """Return whether the system has file locks; Windows has not."""
    return find_spec("fcntl") is not None


def flock(file: IO[bytes], *, wait: bool, shared: bool = False) -> bool | None:
    """Lock an open file until it is closed.

    Args:
        wait: wait while another process holds the lock.
        shared: allow other shared locks.

    Returns:
        Whether the lock was acquired; None if locks are not supported.
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
    """Lock a file, which is created with its folder if missing.

    Args:
        wait: wait while another process holds the lock.

    Returns:
        A context that yields whether the lock was acquired.

    Raises:
        SettingError: there are no file locks, or the file cannot be written.
    """
    with ExitStack() as stack:
        with on_disk(path):  # not around the body of the context, whose errors concern other files
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(path, "ab", opener=not_through))
            acquired = flock(file, wait=wait)
        if acquired is None:
            expected = "a system with file locks if several processes share a folder"
            raise SettingError("run", str(path.parent), expected, "use a local disk, on Linux or macOS")
        yield acquired
