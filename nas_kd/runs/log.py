"""Files that a run writes continually: log.txt, status.json and timing.csv."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_kd.errors import SettingError, escaped
from nas_kd.runs.files import CsvLog, atomic_json, on_disk
from nas_kd.runs.leases import Lease
from nas_kd.runs.links import not_through
from nas_kd.runtime.ranks import in_worker, launched
from nas_kd.runtime.terminal import say

if TYPE_CHECKING:
    from nas_kd.runs.place import Place


class RunLog:
    """The log, status and timing files of a run folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.timing = CsvLog(path / "timing.csv")
        self.place: Place | None = None  # of the stage that is being worked on, among those of a command
        self.command = ""  # that works in the folder; empty in Python
        self.watchers: list[Callable[[], None]] = []  # are called where the work has come further
        self._status: dict[str, Any] = {}  # what this process last wrote to status.json

    def log_message(self, message: str) -> None:
        """Print a line to stderr and append it to log.txt."""
        if launched()[0] > 0:
            return  # the first process logs the same line
        if not in_worker():
            say(message)
        path = self.path / "log.txt"
        with on_disk(self.path), open(path, "a", encoding="utf-8", opener=not_through) as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {escaped(message, lines=True)}\n")

    def write_status(self, state: Mapping[str, Any]) -> None:
        """Write the current state to status.json.

        Args:
            state: stage, state, done, total, unit, eta_seconds, last.
        """
        self._status = {**state, "command": self.command}
        own = asdict(Lease.own())
        process = {name: own[name] for name in ("pid", "host", "place", "started")}
        atomic_json(
            self.path / "status.json", {**self._status, "pid": os.getpid(), "process": process, "updated": time.time()}
        )
        for watch in self.watchers:
            watch()

    def __getstate__(self) -> dict[str, Any]:
        """Leave those who watch this process out of what goes to another one."""
        return {**self.__dict__, "watchers": []}

    @contextmanager
    def timed(self, stage: str, what: str) -> Iterator[None]:
        """Append a row to timing.csv when a block of work ends, however it does.

        Args:
            stage: folder of the stage that it belongs to.
            what: the work, such as ``"scoring"``.
        """
        start = time.perf_counter()
        cpu_start = time.process_time()
        try:
            yield
        finally:
            took = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu_start}
            row = {"stage": stage, "what": what, **took}
            self.timing.append({name: row[name] for name in self.timing.columns})  # those the run was started with

    @contextmanager
    def working(self, command: str) -> Iterator[None]:
        """Say in status.json how a command ended: finished, or stopped where it has begun to work.

        Args:
            command: its name, such as ``"run"``.
        """
        self.command = command
        try:
            yield
        except BaseException:
            if self._status:
                with suppress(OSError, SettingError):  # a full disk would hide the error
                    self.write_status(self._status | {"state": "stopped"})
            raise
        nothing = {"stage": command, "done": 1, "total": 1, "unit": "commands", "eta_seconds": 0.0, "last": {}}
        self.write_status((self._status or nothing) | {"state": "finished"})


def timed(run: RunLog | None, stage: str, what: str) -> AbstractContextManager[None]:
    """Time a block of work as `RunLog.timed` does, if there is a run."""
    return nullcontext() if run is None else run.timed(stage, what)


def log_message(run: RunLog | None, line: str) -> None:
    """Print a line, and append it to the run's log if there is a run."""
    if run is not None:
        run.log_message(line)
    else:
        say(line)
