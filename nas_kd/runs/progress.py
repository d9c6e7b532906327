"""Progress with an ETA, on the terminal and in the run's status.json."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from nas_kd.errors import SettingError
from nas_kd.runs.log import RunLog
from nas_kd.runtime.ranks import in_worker


class Progress:
    """Progress with an ETA: a bar on a terminal, plain lines elsewhere, status.json in the run.

    Use it as a context manager; worker processes print nothing.

    Args:
        stage: name of the work, such as ``"supernet"``.
        total: number of units.
        done: units already done when the work is resumed; the ETA ignores them.
        unit: name of a unit.
        run: the run whose status.json is updated; None only prints.
        every: minimum seconds between plain lines.
    """

    def __init__(
        self,
        stage: str,
        total: int,
        *,
        done: int = 0,
        unit: str = "epochs",
        run: RunLog | None = None,
        every: float = 10.0,
    ) -> None:
        self.stage = stage
        self.total = total
        self.done = done
        self.unit = unit
        self.run = run
        self.last: dict[str, float] = {}
        self._first, self._every, self._lock = done, every, threading.Lock()
        self._began = self._written = self._printed = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    @property
    def eta_seconds(self) -> float | None:
        """Seconds to the end at the mean speed of this process; None before the first unit."""
        here = self.done - self._first
        return (time.monotonic() - self._began) / here * (self.total - self.done) if here else None

    def __enter__(self) -> Progress:
        self._began = self._written = self._printed = time.monotonic()
        if in_worker():
            return self
        if sys.stderr.isatty():
            from rich import progress as rich
            from rich.console import Console

            self._bar = rich.Progress(
                rich.TextColumn("{task.description}"),
                rich.BarColumn(),
                rich.TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[unit]}"),
                rich.TextColumn("{task.fields[eta]}"),
                rich.TextColumn("{task.fields[last]}"),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(
                self.stage, total=self.total, completed=self.done, unit=self.unit, eta="", last=""
            )
            self._bar.start()
        else:
            self._line()
        self._status("running")
        return self

    def advance(self, units: int = 1, **last: float) -> None:
        """Count finished work.

        Args:
            units: number of finished units.
            last: latest values to show, such as ``loss=0.7``.
        """
        with self._lock:
            self.done += units
            self.last.update({name: float(value) for name, value in last.items()})
            if in_worker():
                return
            now = time.monotonic()
            if self._bar is not None:
                self._bar.update(self._task, completed=self.done, eta=self._eta(), last=self._last())
            elif now - self._printed >= self._every:
                self._printed = now
                self._line()
            if now - self._written >= 1.0:
                self._written = now
                self._status("running")

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if in_worker():
            return
        if self._bar is not None:
            self._bar.stop()
        else:
            self._line()
        if kind is None or not issubclass(kind, OSError | SettingError):  # writing to a full disk would hide the error
            self._status("running" if kind is None else "stopped")

    def _eta(self) -> str:
        eta = self.eta_seconds
        return "" if eta is None else f"ETA {format_seconds(eta)}"

    def _last(self) -> str:
        return " ".join(f"{name}={value:.4g}" for name, value in self.last.items())

    def _line(self) -> None:
        words = (f"{self.stage} {self.done}/{self.total} {self.unit}", self._eta(), self._last())
        print("  ".join(word for word in words if word), file=sys.stderr, flush=True)

    def _status(self, state: str) -> None:
        if self.run is not None:
            self.run.write_status(
                {
                    "stage": self.stage,
                    "state": state,
                    "done": self.done,
                    "total": self.total,
                    "unit": self.unit,
                    "eta_seconds": self.eta_seconds,
                    "last": self.last,
                }
            )


def format_seconds(seconds: float) -> str:
    """Format a duration: ``45 s``, ``3 min 20 s``, ``1 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
