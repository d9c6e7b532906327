"""Commands that run beside each other, and what their lease rows say."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from small_run import environment

LIMIT = 200  # seconds until a machine counts as stuck
INJECT = Path(__file__).parent / "inject"
RANK = (  # eight trainings of two epochs of five steps
    "--rank.bands",
    "[25%]",
    "--rank.band",
    "0.2",
    "--rank.in_band",
    "8",
    "--rank.overall",
    "0",
    "--rank.epochs",
    "2",
    "--rank.warmup_epochs",
    "0",
    "--rank.seeds",
    "1",
    "--rank.scores",
    "[macs,params]",
    "--rank.primary",
    "macs",
    "--rank.control",
    "params",
    "--rank.resamples",
    "100",
)


def until(reached: Callable[[], bool]) -> None:
    """Wait for other processes."""
    end = time.monotonic() + LIMIT
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextmanager
def started(
    folder: Path, name: str, *arguments: object, fault: dict[str, Any] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command beside others.

    Args:
        folder: where it works, and its output goes.
        name: the file of its output.
        arguments: the command's.
        fault: arguments of ``faults.arm``, or None.
    """
    command = [sys.executable, "-m", "nas_kd", *map(str, arguments)]
    env = environment()
    if fault is not None:
        env |= {"NAS_KD_TEST_FAULT": json.dumps(fault), "PYTHONPATH": f"{INJECT}:{env['PYTHONPATH']}"}
    with open(folder / name, "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=env, cwd=folder)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


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
