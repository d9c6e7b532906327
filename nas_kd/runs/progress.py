"""Progress with an ETA, on the terminal and in the run's status.json."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import ExitStack
from typing import Any

from nas_kd.errors import SettingError
from nas_kd.runs.log import RunLog
from nas_kd.runs.place import Place
from nas_kd.runtime.ranks import in_worker
from nas_kd.runtime.repeated import repeated
from nas_kd.runtime.terminal import say

BAR = 8  # characters of the bar on a terminal


class Progress:
    """Progress with an ETA: a bar on a terminal, a plain line a minute elsewhere, status.json in the run.

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
        every: float = 60.0,
    ) -> None:
        self.stage = stage
        self.total = total
        self.done = done
        self.unit = unit
        self.run = run
        self.last: dict[str, float] = {}
        self._first: float = done
        self._every, self._lock, self._open = every, threading.Lock(), ExitStack()
        self._began = self._written = self._printed = time.monotonic()
        self._part = (0, 0)  # steps of the unit at hand that are done, and all of them
        self._steps = 0  # done by this process
        self._bar: Any = None
        self._task: Any = None

    @property
    def eta_seconds(self) -> float | None:
        """Seconds to the end at the mean speed of this process; None before the first unit or step."""
        step, steps = self._part
        done = self.done + (step / steps if steps else 0.0)
        here = done - self._first
        return (time.monotonic() - self._began) / here * (self.total - done) if here > 0 else None

    @property
    def place(self) -> Place | None:
        """The stage among those of the command, where it is one of several."""
        return None if self.run is None else self.run.place

    def __enter__(self) -> Progress:
        self._began = self._written = self._printed = time.monotonic()
        if in_worker():
            return self
        if sys.stderr.isatty():
            from rich import progress as rich
            from rich.console import Console

            self._bar = rich.Progress(
                rich.TextColumn("{task.description}"),
                rich.BarColumn(BAR),
                rich.TextColumn("{task.fields[text]}", markup=False),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(self._title, total=self.total, completed=self.done, text=self._text())
            self._bar.start()
        else:
            self._line()
            if self._every > 0:
                self._open.enter_context(repeated(self._still, self._every))
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
            self._part = (0, 0)
            self.last.update({name: float(value) for name, value in last.items()})
            self._show()

    def within(self, step: int, steps: int) -> None:
        """Count the steps of the unit at hand, such as an epoch's.

        Args:
            step: number of finished steps.
            steps: number of all steps of the unit.
        """
        with self._lock:
            if not self._steps:
                self._first += (step - 1) / steps  # a unit that is resumed was begun by another process
            self._steps += 1
            self._part = (step, steps)
            self._show()

    def _show(self) -> None:
        if in_worker():
            return
        now = time.monotonic()
        if self._bar is not None:
            if now - self._printed >= 0.2 or not self._part[0]:
                self._printed = now
                self._bar.update(self._task, completed=self.done + self._share, text=self._text())
        elif now - self._printed >= self._every:
            self._printed = now
            self._line()
        if now - self._written >= 1.0:
            self._written = now
            self._status("running")

    def _still(self) -> None:
        """Print a line where the work has not counted anything for long."""
        with self._lock:
            if time.monotonic() - self._printed >= 0.9 * self._every:
                self._printed = time.monotonic()
                self._line()

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if in_worker():
            return
        self._open.close()
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, text=self._text())
            self._bar.stop()
        else:
            self._line()
        if kind is None or not issubclass(kind, OSError | SettingError):  # writing to a full disk would hide the error
            going = self.run is not None and bool(self.run.command)  # a command says itself when it is finished
            self._status("stopped" if kind is not None else "running" if going else "finished")

    @property
    def _share(self) -> float:
        step, steps = self._part
        return step / steps if steps else 0.0

    @property
    def _title(self) -> str:
        place = self.place
        return self.stage if place is None else f"[{place.number}/{place.stages}] {self.stage}"

    def _words(self) -> list[str]:
        """Return what is done, the ETA of this work and of all stages, and the steps: what matters most first."""
        words = [f"{self.done}/{self.total} {self.unit}"]
        eta = self.eta_seconds
        if eta is not None:
            words.append(f"ETA {format_seconds(eta)}")
        whole = None if self.place is None else self.place.eta_seconds(eta)
        if whole is not None:
            words.append(f"all {format_seconds(whole)}")
        step, steps = self._part
        if steps:
            rate = self._steps / max(time.monotonic() - self._began, 1e-9)
            words.append(f"step {step}/{steps} {f'{rate:.3g}/s' if rate >= 1 else f'{1 / rate:.3g} s each'}")
        return words

    def _text(self) -> str:
        """Return what stands behind the bar; the latest values take the room that is left, and none from the rest."""
        width = 80 if self._bar is None else self._bar.console.width
        text = "  ".join([*self._words(), self._last()])
        return text[: max(0, width - len(self._title) - BAR - 3)].rstrip()

    def _last(self) -> str:
        return " ".join(f"{name}={value:.4g}" for name, value in self.last.items())

    def _line(self) -> None:
        first, *words = [*self._words(), self._last()]
        say("  ".join(word for word in (f"{self._title} {first}", *words) if word))

    def _status(self, state: str) -> None:
        if self.run is None:
            return
        eta = self.eta_seconds
        step, steps = self._part
        found = {
            "stage": self.stage,
            "state": state,
            "done": self.done,
            "total": self.total,
            "unit": self.unit,
            "eta_seconds": eta,
            "last": self.last,
        }
        if steps:
            found |= {"step": step, "steps": steps}
        if self.place is not None:
            place = self.place
            found |= {"number": place.number, "stages": place.stages, "total_eta_seconds": place.eta_seconds(eta)}
        self.run.write_status(found)


def format_seconds(seconds: float) -> str:
    """Format a duration: ``45 s``, ``3 min 20 s``, ``1 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
