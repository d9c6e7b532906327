"""Forks `nas-kd` commands from one process that has everything imported, and breaks them at chosen writes.

One line of JSON in, one out: ``{"argv": [...], "log": path, "fault": null or {"path": regular expression,
"nth": 1, "what": "kill" | "half" | "full"}}`` gives the exit code, -9 after a kill. ``kill`` is a SIGKILL
right before the nth write of such a path, ``half`` one after half of its bytes, ``full`` is a disk without
space from that write on.
"""

from __future__ import annotations

import builtins
import errno
import json
import os
import re
import signal
import sys
from typing import Any


def arm(path: str, nth: int, what: str) -> None:
    """Patch the calls by which a run's files come to be.

    Args:
        path: regular expression that a written path must contain.
        nth: which of these writes is hit.
        what: ``kill``, ``half`` or ``full``.
    """
    names: dict[int, str] = {}
    seen = 0
    dead = False
    real = {"open": os.open, "write": os.write, "replace": os.replace, "fsync": os.fsync}
    plain_open = builtins.open

    def hit(written: str) -> bool:
        nonlocal seen, dead
        if re.search(path, written):
            seen += 1
        if seen < nth:
            return False
        if what == "full":
            dead = True
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), written)
        return True

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def opens(name: Any, *rest: Any, **more: Any) -> int:
        handle = real["open"](name, *rest, **more)
        names[handle] = os.fspath(name)
        return handle

    def writes(handle: int, data: bytes) -> int:
        if hit(names.get(handle, "")):
            if what == "half":
                real["write"](handle, data[: len(data) // 2])
            die()
        return real["write"](handle, data)

    def replaces(source: Any, target: Any) -> None:
        if hit(os.fspath(target)):
            die()
        real["replace"](source, target)

    def syncs(handle: int) -> None:
        if dead:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real["fsync"](handle)

    def opened(name: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if what == "full" and mode[0] in "wax" and name != os.devnull and (dead or re.search(path, str(name))):
            if dead or hit(str(name)):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(name))
        return plain_open(name, mode, *rest, **more)

    os.open, os.write, os.replace, os.fsync = opens, writes, replaces, syncs  # type: ignore[assignment]
    builtins.open = opened  # type: ignore[assignment]


def command(argv: list[str], log: str, fault: dict[str, Any] | None) -> int:
    """Run one command in this process, its output in a file."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(handle, stream)
    if fault is not None:
        arm(**fault)
    from nas_kd.cli import main

    return main(argv)


def serve() -> None:
    """Answer until the input ends."""
    import lightning_fabric  # noqa: F401
    import optuna.storages  # noqa: F401
    import rich.table  # noqa: F401
    import scipy.optimize  # noqa: F401
    import sklearn.datasets  # noqa: F401
    import torch

    import nas_kd.analyse
    import nas_kd.rate
    import nas_kd.verbs.pipeline  # noqa: F401

    torch.set_num_threads(1)  # threads do not live on in a fork
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            code = 1  # what a traceback gives
            try:
                code = command(**job)
            except BaseException:
                import traceback

                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
