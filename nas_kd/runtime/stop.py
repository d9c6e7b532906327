"""Stopping on a signal or a time limit, after the current step has finished and its state is saved."""

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

from nas_kd.config.kinds import checked
from nas_kd.errors import SettingError
from nas_kd.runtime.ranks import launched

SIGNALS = (signal.SIGINT, signal.SIGTERM)
OUT_OF_TIME = 124  # the exit status of GNU `timeout`, on which a queue may restart the command


class Stopped(KeyboardInterrupt):
    """Work was stopped by a signal or a time limit, after saving its state.

    Args:
        number: the signal.
        saved: description of what was saved last; empty if nothing was being trained.
        timed_out: whether it was a time limit.
    """

    def __init__(self, number: int, saved: str = "", timed_out: bool = False) -> None:
        super().__init__(number, saved, timed_out)
        self.number = number
        self.saved = saved
        self.timed_out = timed_out

    @property
    def code(self) -> int:
        """The exit code: 130 after SIGINT, 143 after SIGTERM, 124 after the time limit."""
        return OUT_OF_TIME if self.timed_out else 128 + self.number

    def __str__(self) -> str:
        why = "the time limit" if self.timed_out else signal.Signals(self.number).name
        return f"stopped by {why}{f', {self.saved}' if self.saved else ''}; the same command continues from here"


class Stop:
    """Defers SIGINT and SIGTERM until the work checks for them; a second one stops immediately.

    Use it as a context manager around steps that must not be interrupted. Inside it the signals set ``requested``;
    on exit their previous handlers are restored, and `Stopped` is raised if nothing has checked by then. Ignored
    signals stay ignored, and only the main thread receives any. The time limit is sent as a SIGTERM, which wakes a
    main thread that waits for workers or for a lock, even if SIGTERM is ignored.

    Args:
        at_once: raise `Stopped` wherever the work is, as Ctrl-C does, for work that can be interrupted anywhere.
        hours: time limit; None for none.

    Raises:
        RuntimeError: a time limit is entered outside the main thread.
    """

    def __init__(self, *, at_once: bool = False, hours: float | None = None) -> None:
        self.requested: int | None = None
        self._at_once = at_once
        self._timed_out = False
        self._due = False  # the next SIGTERM is that of the time limit
        self._outer: Stop | None = None
        self._ignores_term = False  # except for the time limit
        # such processes get both the terminal's signal and their parent's, which ends them in time
        self._ignores_second = multiprocessing.parent_process() is not None or launched()[1] > 1
        self._before: dict[int, Any] = {}
        seconds = None if hours is None else min(hours * 3600, threading.TIMEOUT_MAX)
        self._timer = None if seconds is None else threading.Timer(seconds, self._time_is_up)

    def __enter__(self) -> Stop:
        if threading.current_thread() is not threading.main_thread():
            if self._timer is not None:
                raise RuntimeError("a time limit must be entered in the main thread")
            return self
        at_once = self._at_once
        ignores_second = self._ignores_second
        # until all handlers are installed a signal is only recorded
        self._at_once = False
        self._ignores_second = True
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
                self._ignores_term = ignored or (isinstance(outer, Stop) and outer._ignores_term)
            signal.signal(number, self._take)
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()
        self._at_once = at_once
        self._ignores_second = ignores_second
        if self._at_once and self.requested is not None:
            self.__exit__(None, None, None)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        # from here on a signal is only recorded
        self._at_once = False
        self._ignores_second = True
        if self._timer is not None and self._timer.ident is not None:
            self._timer.cancel()
            self._timer.join()  # before the handlers are restored: its signal would end the process
            time.sleep(0)  # a system call, so that a pending signal is delivered
        for number, before in self._before.items():
            signal.signal(number, before)
        if isinstance(error, Stopped):
            error.timed_out = error.timed_out or self._timed_out
        elif kind is None and self.requested is not None:
            raise Stopped(self.requested, timed_out=self._timed_out)

    @contextmanager
    def interruptible(self, enabled: bool = True) -> Iterator[None]:
        """Let a signal stop the work immediately within the context; False changes nothing."""
        before = self._at_once
        self._at_once = self._at_once or enabled
        try:
            if self._at_once and self.requested is not None:
                raise Stopped(self.requested)
            yield
        finally:
            self._at_once = before

    def _take(self, number: int, frame: FrameType | None) -> None:
        limit = number == signal.SIGTERM and self._is_time_limit()
        if limit and self.requested is not None:
            return  # the work is already stopping on a signal, and must not be interrupted
        if number == signal.SIGTERM and self._ignores_term and not limit:
            return
        first = self.requested is None
        self.requested = number
        if frame is not None and frame.f_code is Stop.__exit__.__code__:
            return  # before its first line: raised at its end, after the handlers are restored
        if self._at_once or not (first or self._ignores_second):
            raise Stopped(number, timed_out=limit)
        if first and not self._ignores_second:
            # not print: this may be in the middle of one
            os.write(2, b"nas-kd: stopping after this step; a second signal stops immediately\n")

    def _is_time_limit(self) -> bool:
        """Return, once, whether a SIGTERM is that of the time limit of this context or of an outer one."""
        mine = self._due
        self._due = False
        return (self._outer is not None and self._outer._is_time_limit()) or mine

    def _time_is_up(self) -> None:
        self._timed_out = self._due = True
        if not callable(signal.getsignal(signal.SIGTERM)):
            self.requested = signal.SIGTERM  # the handler was replaced inside: raised at the end
        elif hasattr(signal, "pthread_kill"):
            # a real signal: interrupt_main does not wake a main thread that waits for a lock or a file
            main = threading.main_thread().ident
            assert main is not None
            signal.pthread_kill(main, signal.SIGTERM)
        else:
            _thread.interrupt_main(signal.SIGTERM)


@checked
def time_limit(hours: float) -> Stop:
    """Stop the training inside when the time is up, after its state is saved: ``with time_limit(8): ...``.

    Returns:
        A context that then raises `Stopped` with ``timed_out`` True. It must be entered in the main thread.

    Raises:
        SettingError: ``hours`` is no number above 0.
    """
    if not hours > 0:  # NaN is not
        raise SettingError("hours", hours, "a number above 0", "8 is eight hours")
    return Stop(at_once=True, hours=hours)
