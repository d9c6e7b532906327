"""Who works on what: leases that workers renew, and by which the others find out that one is lost."""

from __future__ import annotations

import json
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from nas_kd.runs.files import on_disk
from nas_kd.runs.lock import held

HEARTBEAT = 10.0  # seconds between two renewals of a lease
PATIENCE = 30.0  # seconds without a renewal after which a worker counts as lost
LOCK = "lock"  # the file in a folder of leases whose lock makes decisions one at a time


@dataclass(frozen=True)
class Lease:
    """What a worker has in hand.

    Args:
        worker: its id, never used twice.
        pid: its process.
        host: its machine's name.
        place: where the pid means something: this boot of this machine, and the pid namespace.
        started: when the process began, in the kernel's ticks: a pid is given again, this is not.
        job: what it is doing; empty between two jobs.
        heartbeat: changes with every renewal; its value says nothing.
    """

    worker: str
    pid: int
    host: str
    place: str
    started: str
    job: str = ""
    heartbeat: int = 0

    @staticmethod
    def own() -> Lease:
        """Return a new lease for this process."""
        host = socket.gethostname()
        worker = f"{host}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        return Lease(worker, os.getpid(), host, _place(), _started(os.getpid()) or "")

    def dead(self) -> bool:
        """Tell whether the process is certainly gone; one on another machine never is."""
        return self.place == _place() and _started(self.pid) != self.started

    def __str__(self) -> str:
        return f"{self.worker} (process {self.pid} of {self.host})"


def _place() -> str:
    """Name this boot of this machine and this pid namespace: below it a pid is one process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux: only renewals tell
        return f"{socket.gethostname()} {uuid.getnode()}"


def _started(pid: int) -> str | None:
    """Return when a process began; None when it has ended, or is a zombie that nobody has waited for."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None if Path("/proc/self/stat").exists() else "unknown"
    return None if state in "ZX" else rest[18]


class LeaseStore(Protocol):
    """Keeps leases; every decision that rests on them is made under its lock."""

    def lock(self) -> AbstractContextManager[None]:
        """Return a context of which one at a time is entered; a process that ends leaves it."""

    def rows(self) -> list[Lease]:
        """Return all rows."""

    def put(self, lease: Lease) -> None:
        """Write a row, replacing the worker's old one."""

    def renew(self, worker: str) -> None:
        """Change a lease's heartbeat; one that was dropped stays so."""

    def drop(self, worker: str) -> None:
        """Delete a row, if it is there."""


class FileLeases:
    """Leases as files, one a worker, for the processes of one machine.

    Args:
        folder: where they lie; every process names the same.

    Raises:
        SettingError: the disk is full or read-only, or the system has no file locks.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        with on_disk(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Wait for the folder's lock; it ends with the process that holds it."""
        with held(self.folder / LOCK, wait=True):
            yield

    def rows(self) -> list[Lease]:
        """Return all rows that can be read."""
        found = []
        for path in sorted(self.folder.glob("*.json")):
            with suppress(OSError, ValueError, TypeError):
                found.append(Lease(**json.loads(path.read_text()), heartbeat=path.stat().st_mtime_ns))
        return found

    def put(self, lease: Lease) -> None:
        """Write a row, whole or not at all."""
        kept = {name: value for name, value in asdict(lease).items() if name != "heartbeat"}
        part = self.folder / f".{lease.worker}.tmp"
        with on_disk(self.folder):
            part.write_text(json.dumps(kept) + "\n")
            try:
                part.replace(self._path(lease.worker))
            except FileNotFoundError:  # a command that starts in the run clears such parts away
                self._path(lease.worker).write_text(json.dumps(kept) + "\n")

    def renew(self, worker: str) -> None:
        """Touch a row's file."""
        with suppress(FileNotFoundError):
            os.utime(self._path(worker))

    def drop(self, worker: str) -> None:
        """Delete a row."""
        self._path(worker).unlink(missing_ok=True)

    def _path(self, worker: str) -> Path:
        return self.folder / f"{worker}.json"
