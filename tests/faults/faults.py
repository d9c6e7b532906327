"""Breaks a process at a chosen moment: a kill, a torn write, a full disk or a signal at the nth write or call.

``inject/sitecustomize.py`` does so in any Python process that has its folder in PYTHONPATH, as the variable
``NAS_KD_TEST_FAULT`` says; the product knows of neither.
"""

from __future__ import annotations

import builtins
import errno
import importlib
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIGNALS = {"kill": signal.SIGKILL, "half": signal.SIGKILL, "int": signal.SIGINT, "term": signal.SIGTERM}


def cpu_seconds(pid: int) -> float:
    """Return the processor time a process has used: a clock that a busy machine does not speed up."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Torn:
    """A file whose process dies when half of a write is done."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Torn:
        return self

    def __exit__(self, *rest: object) -> None:
        self._file.close()

    def write(self, data: Any) -> None:
        """Write half of it."""
        part = data if isinstance(data, str) else memoryview(data)
        self._file.write(part[: len(part) // 2])
        self._file.flush()
        os.kill(os.getpid(), signal.SIGKILL)


def arm(
    *, what: str, nth: int = 1, path: str = "", call: str = "", times: int = 1, quota: int = 0, until: str = ""
) -> None:
    """Patch what is to break.

    Args:
        what: ``kill``: SIGKILL right before it. ``half``: SIGKILL after half of its bytes. ``full``: a disk
            without space from it on; ``short``: one that still takes half of it. ``int`` and ``term``: that
            signal right before it. ``late``: the end of the command's time right before it. ``wait``: wait
            there until the file ``until`` exists. ``denied``: the process loses root's right to write where
            permissions forbid it. ``quota``: files grow to ``quota`` bytes.
        nth: which one is hit, from 1.
        path: regular expression that a written path contains, or a text among the arguments of ``call``.
        call: dotted name of a function, hit in the place of a write.
        times: how many signals in a row.
        quota: bytes.
        until: a file.
    """
    if what == "denied":
        _drop_rights()
    elif what == "quota":
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (quota, quota))
    elif call:
        _arm_call(call, nth, path, lambda: _strike(what, times, until))
    else:
        _arm_writes(path, nth, what)


def _strike(what: str, times: int = 1, until: str = "") -> None:
    if what == "late":
        _end_of_time()
    elif what == "wait":
        while not Path(until).exists():
            time.sleep(0.01)
    else:
        for _ in range(times):
            os.kill(os.getpid(), SIGNALS[what])


def _end_of_time() -> None:
    """Let the time limit of this command strike now: its clock is the only timer there is."""
    (clock,) = (thread for thread in threading.enumerate() if isinstance(thread, threading.Timer))
    clock.finished.set()  # it wakes ...
    clock.join()
    limit = threading.Thread(target=clock.function)  # ... without a word, and this speaks in its place
    limit.start()
    limit.join()


def _arm_call(name: str, nth: int, argument: str, strike: Callable[[], None]) -> None:
    place, _, last = name.rpartition(".")
    module = importlib.import_module(place)
    real, seen = getattr(module, last), 0

    def called(*args: Any, **kwargs: Any) -> Any:
        nonlocal seen
        if any(re.search(argument, text) for text in args if isinstance(text, str)) or not argument:
            seen += 1
            if seen == nth:
                strike()
        return real(*args, **kwargs)

    setattr(module, last, called)


def _arm_writes(path: str, nth: int, what: str) -> None:
    names: dict[int, str] = {}
    seen = 0
    dead = False
    real = {"open": os.open, "write": os.write, "replace": os.replace, "fsync": os.fsync}
    plain_open = builtins.open

    def hit(written: str, row: bool = False) -> bool:
        nonlocal seen, dead
        if re.search(path, written) and (row or what != "short"):  # only rows are written in bits
            seen += 1
            if what == "full" and seen >= nth:
                dead = True
            return seen == nth
        return False

    def strike(half: Any = None) -> None:
        if what in ("full", "short"):
            return
        if what == "half" and half is not None:
            half()
        _strike(what)

    def refuse(written: str) -> None:
        if dead:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), written)

    def opens(name: Any, *rest: Any, **more: Any) -> int:
        handle = real["open"](name, *rest, **more)
        names[handle] = os.fspath(name) if not isinstance(name, int) else ""
        return handle

    def writes(handle: int, data: bytes) -> int:
        nonlocal dead
        name = names.get(handle, "")
        if hit(name, row=True):
            if what == "short":
                dead = True
                return real["write"](handle, data[: len(data) // 2])
            strike(lambda: real["write"](handle, data[: len(data) // 2]))
        if name:
            refuse(name)
        return real["write"](handle, data)

    def replaces(source: Any, target: Any, **more: Any) -> None:
        if hit(os.fspath(target)):
            strike()
        refuse(os.fspath(target))
        real["replace"](source, target, **more)

    def syncs(handle: int) -> None:
        refuse("")
        real["fsync"](handle)

    def opened(name: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
        writing = mode[0] in "wax" and isinstance(name, str | os.PathLike) and name != os.devnull
        if not writing:
            return plain_open(name, mode, *rest, **more)
        struck = hit(os.fspath(name))
        if struck and what != "half":
            strike()
        refuse(os.fspath(name))
        file = plain_open(name, mode, *rest, **more)
        return Torn(file) if struck and what == "half" else file

    os.open, os.write, os.replace, os.fsync = opens, writes, replaces, syncs  # type: ignore[assignment]
    builtins.open = opened  # type: ignore[assignment]


def _drop_rights() -> None:
    """Give up all of root's capabilities, so that permissions count for root as for everybody."""
    import ctypes

    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3 of capset(2), this process
    nothing = (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(header, nothing) != 0:
        raise OSError(ctypes.get_errno(), "capset")
