"""Files that a run writes continually: log.txt, status.json and timing.csv."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_kd.runs.files import CsvLog, atomic_json, on_disk
from nas_kd.runs.links import not_through
from nas_kd.runtime.ranks import in_worker, launched

if TYPE_CHECKING:
    from nas_kd.runs.place import Place


class RunLog:
    """The log, status and timing files of a run folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.timing = CsvLog(path / "timing.csv")
        self.place: Place | None = None  # of the stage that is being worked on, among those of a command

    def log_message(self, message: str) -> None:
        """Print a line to stderr and append it to log.txt."""
        if launched()[0] > 0:
            return  # the first process logs the same line
        if not in_worker():
            print(message, file=sys.stderr, flush=True)
        with on_disk(self.path), open(self.path / "log.txt", "a", opener=not_through) as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}\n")

    def write_status(self, state: Mapping[str, Any]) -> None:
        """Write the current state to status.json.

        Args:
            state: stage, state, done, total, unit, eta_seconds, last.
        """
        atomic_json(self.path / "status.json", {**state, "pid": os.getpid(), "updated": time.time()})


def log_message(run: RunLog | None, line: str) -> None:
    """Print a line, and append it to the run's log if there is a run."""
    if run is not None:
        run.log_message(line)
    else:
        print(line, file=sys.stderr, flush=True)
