"""Commands that run beside each other, and what their lease rows say."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from forks import Forks, Started

LIMIT = 200  # seconds until a machine counts as stuck


def rank_options(*scores: str) -> tuple[str, ...]:
    """Ask for eight trainings of two epochs of five steps, judged by the first score against the last."""
    options = {
        "bands": "[25%]",
        "band": "0.2",
        "in_band": "8",
        "overall": "0",
        "epochs": "2",
        "warmup_epochs": "0",
        "seeds": "1",
        "scores": f"[{','.join(scores)}]",
        "primary": scores[0],
        "control": scores[-1],
        "resamples": "100",
    }
    return tuple(word for name, value in options.items() for word in (f"--rank.{name}", value))


RANK = rank_options("macs", "params")


def until(reached: Callable[[], bool]) -> None:
    """Wait for other processes."""
    end = time.monotonic() + LIMIT
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextmanager
def started(
    fork: Forks, folder: Path, name: str, *arguments: object, fault: dict[str, Any] | None = None
) -> Iterator[Started]:
    """Run a command beside others.

    Args:
        fork: starts it.
        folder: where it works, and its output goes.
        name: the file of its output.
        arguments: the command's.
        fault: arguments of ``faults.arm``, or None.
    """
    process = fork.start(*arguments, log=folder / name, fault=fault, cwd=folder)
    try:
        yield process
    finally:
        process.kill()
        process.wait(LIMIT)


def leases(folder: Path) -> dict[int, str]:
    """Return what each process of a search or ranking has in hand."""
    found = {}
    for path in (folder / "leases").glob("*.json"):
        try:
            row = json.loads(path.read_text())
        except (ValueError, FileNotFoundError):
            continue
        found[row["pid"]] = row["job"]
    return found
