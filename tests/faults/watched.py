"""Tries mutated files of a run, and watches that nothing outside of it is touched; one line of JSON a mutation.

Arguments: the finished run, an empty folder for the copies, the numbers of the first and behind the last mutation, then
commands besides ``status`` and ``report``, of which each mutation gets one in turn.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from bad_runs import spoilt
from batch import tried

LIMIT = 60.0  # seconds of processor time: a run that lost its first file is trained again
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# events of sys.addaudithook that change files, and which of their arguments are paths
CHANGES = {
    "os.remove": (0,),
    "os.rename": (0, 1),
    "os.rmdir": (0,),
    "os.mkdir": (0,),
    "os.link": (0, 1),
    "os.symlink": (1,),
    "os.truncate": (0,),
    "os.chmod": (0,),
    "os.chown": (0,),
    "os.utime": (0,),
    "shutil.rmtree": (0,),
    "shutil.move": (0, 1),
}
FORBIDDEN = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "socket.connect", "ctypes.dlopen.run")


class Watcher:
    """Collects what is written, moved or deleted outside of one folder, and what is started."""

    def __init__(self, inside: Path) -> None:
        self.inside = os.path.realpath(inside)
        self.found: list[str] = []
        self.on = False
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event in FORBIDDEN:
            self.found.append(f"{event} {str(arguments[0])[:200]}")
        elif event == "open":
            path, mode, flags = arguments
            writes = any(letter in mode for letter in "wax+") if mode else (flags or 0) & WRITING
            if writes:
                self._look(event, path)
        else:
            for at in CHANGES.get(event, ()):
                # a folder that is open, as in rmtree
                below = arguments[1] if event in ("os.remove", "os.rmdir") else -1
                path = arguments[at]
                if isinstance(below, int) and below >= 0 and not isinstance(path, int):
                    path = os.path.join(os.readlink(f"/proc/self/fd/{below}"), os.fsdecode(path))
                self._look(event, path)

    def _look(self, event: str, path: Any) -> None:
        if isinstance(path, int) or path in (os.devnull, b"/dev/null"):
            return
        where = os.path.join(os.path.realpath(os.path.dirname(os.fsdecode(path))), os.path.basename(os.fsdecode(path)))
        if not f"{os.path.realpath(where)}/".startswith(f"{self.inside}/"):
            self.found.append(f"{event} {where}")


def main(run: Path, place: Path, first: int, last: int, commands: list[str]) -> None:
    """Try mutations ``first`` to ``last`` - 1."""
    if commands:
        import timm.data  # noqa: F401

        import nas_kd.pipeline.commands  # noqa: F401
    import numpy.testing  # noqa: F401  # numpy 1.26 asks lscpu when it is imported

    import nas_kd.analyse.report  # noqa: F401
    from nas_kd.cli import main as nas_kd

    platform.processor()  # asks uname once in a process
    copy = place / "run"
    watcher = Watcher(copy)
    for number in range(first, last):
        what = spoilt(run, copy, number)
        more = commands[number % len(commands) :][:1] if commands else []
        for command in ("status", "report", *more):
            watcher.found, watcher.on = [], True
            said = tried([command, str(copy)], nas_kd, LIMIT)
            watcher.on = False
            print(
                json.dumps({"number": number, "what": what, "command": command, "outside": watcher.found, **said}),
                flush=True,
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
