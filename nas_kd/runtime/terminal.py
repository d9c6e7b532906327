"""Standard output and error of a command, which may be closed, broken, or unable to show every character."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from nas_kd.errors import escaped

BROKEN_PIPE = 141  # the exit status of a program that SIGPIPE ends


def prepare() -> None:
    """Make standard streams writable whatever the caller gave.

    A stream that is closed goes nowhere: the first file that a run opens would take its number, and messages its
    content. Characters that the locale's encoding lacks are written as their codes.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def say(message: str) -> None:
    """Print a message to standard error; control characters are written as their codes.

    Work goes on where nobody reads it any more: a terminal that was closed, a pipe whose reader has ended.
    """
    with suppress(OSError, ValueError):
        print(escaped(message, lines=True), file=sys.stderr, flush=True)


def broken() -> int:
    """Give standard output up after its reader has ended, as in ``nas-kd status RUN | head -1``.

    Returns:
        The exit code.
    """
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python fails again when it ends
    return BROKEN_PIPE
