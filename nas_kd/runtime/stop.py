"""Stop at a signal or a time limit, after the current step has ended and its state is saved."""

from __future__ import annotations

import _thread
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from nas_kd.runtime.ranks import launched

SIGNALS = (signal.SIGINT, signal.SIGTERM)
OUT_OF_TIME = 124  # the exit status of GNU `timeout`, by which a queue may restart the command


class Stopped(KeyboardInterrupt):
    """Work was stopped by a signal or a time limit, after saving its state.

    Args:
        number: the signal.
        saved: what was saved last, in words; empty where nothing was being trained.
        late: whether it was a time limit.
    """

    def __init__(self, number: int, saved: str = "", late: bool = False) -> None:
        super().__init__(number, saved, late)
        self.number = number
        self.saved = saved
        self.late = late

    @property
    def code(self) -> int:
        """The exit code: 130 after SIGINT, 143 after SIGTERM, 124 at the end of the time."""
        return OUT_OF_TIME if self.late else 128 + self.number

    def __str__(self) -> str:
        why = "the time limit" if self.late else signal.Signals(self.number).name
        return f"stopped by {why}{f', {self.saved}' if self.saved else ''}; the same command continues from here"


class Stop:
    """Holds SIGINT and SIGTERM back until the work checks for them; a second one stops at once.

    Use it as a context manager around steps that must not be interrupted. Within it the signals set ``requested``;
    afterwards their former handlers are back, and where nothing has checked until then `Stopped` is raised at the
    end. Signals that are ignored stay so, and a thread that is not the main one gets none. The time limit comes as
    a SIGTERM, which wakes a main thread that waits for workers or for a lock, also where SIGTERM is ignored.

    Args:
        at_once: raise `Stopped` wherever the work is, as Ctrl-C does, for work that loses nothing by it.
        hours: time limit; None for none.

    Raises:
        RuntimeError: there is a time limit, and it is entered in a thread that is not the main one.
    """

    def __init__(self, *, at_once: bool = False, hours: float | None = None) -> None:
        self.requested: int | None = None
        self._at_once = at_once
        self._late = False
        self._due = False  # the next SIGTERM is the time limit's
        self._outer: Stop | None = None
        self._deaf = False  # ignores all other SIGTERM
        # such processes get the terminal's signal and that of their parent, which ends them in time
        self._patient = multiprocessing.parent_process() is not None or launched()[1] > 1
        self._before: dict[int, Any] = {}
        self._timer = None if hours is None else threading.Timer(hours * 3600, self._time_is_up)

    def __enter__(self) -> Stop:
        if threading.current_thread() is not threading.main_thread():
            if self._timer is not None:
                raise RuntimeError("a time limit stops the main thread only: enter it there")
            return self
        wanted = self._at_once, self._patient
        # until the handlers are complete a signal is only recorded
        self._at_once = False
        self._patient = True
        for number in SIGNALS:
            before = signal.getsignal(number)
            ignored = before is signal.SIG_IGN
            limited = self._timer is not None and number == signal.SIGTERM
            if before is None or (ignored and not limited):
                continue
            self._before[number] = before
            outer = getattr(before, "__self__", None)
            if isinstance(outer, Stop):
                self._outer = outer
                self.requested = outer.requested if self.requested is None else self.requested
            if number == signal.SIGTERM:
                self._deaf = ignored or (isinstance(outer, Stop) and outer._deaf)
            signal.signal(number, self._take)
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()
        self._at_once, self._patient = wanted
        if self._at_once and self.requested is not None:
            self.__exit__(None, None, None)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        # from here on a signal is only recorded
        self._at_once = False
        self._patient = True
        if self._timer is not None and self._timer.ident is not None:
            self._timer.cancel()
            self._timer.join()  # before the handlers go: its signal would end the process
            time.sleep(0)  # a system call, in which a signal on its way arrives
        for number, before in self._before.items():
            signal.signal(number, before)
        if isinstance(error, Stopped):
            error.late = error.late or self._late
        elif kind is None and self.requested is not None:
            raise Stopped(self.requested, late=self._late)

    @contextmanager
    def open(self, wanted: bool = True) -> Iterator[None]:
        """Let a signal stop the work at once within the context, where that loses nothing; False changes nothing."""
        before = self._at_once
        self._at_once = self._at_once or wanted
        try:
            if self._at_once and self.requested is not None:
                raise Stopped(self.requested)
            yield
        finally:
            self._at_once = before

    def _take(self, number: int, frame: FrameType | None) -> None:
        limit = number == signal.SIGTERM and self._is_time_limit()
        if limit and self.requested is not None:
            return  # work stopped by a signal ends in time, and must not be interrupted
        if number == signal.SIGTERM and self._deaf and not limit:
            return
        first = self.requested is None
        self.requested = number
        if frame is not None and frame.f_code is Stop.__exit__.__code__:
            return  # before its first line: raised at its end, with the handlers restored
        if self._at_once or not (first or self._patient):
            raise Stopped(number, late=limit)
        if first and not self._patient:
            # not print: this may be in the middle of one
            os.write(2, b"nas-kd: stopping after this step; a second signal stops at once\n")

    def _is_time_limit(self) -> bool:
        """Return, once, whether a SIGTERM is that of the time limit of this one or of one around it."""
        mine = self._due
        self._due = False
        return (self._outer is not None and self._outer._is_time_limit()) or mine

    def _time_is_up(self) -> None:
        self._late = self._due = True
        if not callable(signal.getsignal(signal.SIGTERM)):
            self.requested = signal.SIGTERM  # the work inside has replaced the handler: raised at the end
        elif hasattr(signal, "pthread_kill"):
            # a real signal: interrupt_main leaves a main thread asleep that waits for a lock or a file
            main = threading.main_thread().ident
            assert main is not None
            signal.pthread_kill(main, signal.SIGTERM)
        else:
            _thread.interrupt_main(signal.SIGTERM)


def time_limit(hours: float) -> Stop:
    """Stop what is trained inside when the time is up, after its state is saved: ``with time_limit(8): ...``.

    Returns:
        A context in which `Stopped` is raised then; its ``late`` is True. Entered in a thread that is not the main one
        it raises RuntimeError.
    """
    return Stop(at_once=True, hours=hours)
