"""Leases of workers on units of work, renewed by heartbeats; a lease that is not renewed is that of a lost worker."""

from __future__ import annotations

import json
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Protocol

from nas_kd.config.reading import parsed, read_text
from nas_kd.runs.files import atomic_write, on_disk
from nas_kd.runs.links import not_through
from nas_kd.runs.lock import held

HEARTBEAT = 10.0  # seconds between renewals of a lease
PATIENCE = 30.0  # seconds without a renewal after which a worker counts as lost
LOCK = "lock"  # the file in a folder of leases whose lock serialises decisions


@dataclass(frozen=True)
class Lease:
    """A worker and the job it has claimed.

    Args:
        worker: unique id.
        host: name of the machine.
        place: scope of the pid: the current boot of the machine, and the pid namespace.
        started: start time of the process in kernel ticks, since a pid may be reused.
        job: the claimed job; empty between jobs.
        heartbeat: changes with every renewal; its value has no meaning.
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
        """Return whether the process has certainly ended; unknown for other machines, hence False."""
        return self.place == _place() and _started(self.pid) != self.started

    def __str__(self) -> str:
        return f"{self.worker} (process {self.pid} of {self.host})"


def read_lease(path: Path, heartbeat: int = 0) -> Lease:
    """Read a lease from a file.

    Raises:
        ValueError: it holds none; also SettingError where it is too large or no file.
        OSError: it cannot be read.
    """
    known = parsed(read_text(path))
    names = {one.name for one in fields(Lease)} - {"heartbeat"}
    if not isinstance(known, dict):
        raise ValueError("no lease")
    known.pop("heartbeat", None)  # notes of a folder's lock have it; what counts is the file's time
    if not names - {"job"} <= known.keys() <= names:
        raise ValueError("no lease")
    texts = [value for name, value in known.items() if name != "pid"]
    pid = known["pid"]
    if not all(isinstance(text, str) for text in texts) or not isinstance(pid, int) or not known["place"].split():
        raise ValueError("no lease")
    if "/" in known["worker"] + known.get("job", ""):  # they become names of files
        raise ValueError("no lease")
    return Lease(**known, heartbeat=heartbeat)


def _place() -> str:
    """Identify the current boot of this machine and the pid namespace, within which a pid is one process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux: only renewals show that a process is alive
        return f"{socket.gethostname()} {uuid.getnode()}"


def _started(pid: int) -> str | None:
    """Return the start time of a process; None if it has ended or is a zombie."""
    try:
        state, *rest = (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
    except (FileNotFoundError, ProcessLookupError):
        return None if Path("/proc/self/stat").exists() else "unknown"
    return None if state in "ZX" else rest[18]


class LeaseStore(Protocol):
    """Storage of leases; every decision that depends on them is made under its lock."""

    def lock(self) -> AbstractContextManager[None]:
        """Return a context that one process at a time can enter; it ends with the process."""

    def rows(self) -> list[Lease]:
        """Return all leases."""

    def put(self, lease: Lease) -> None:
        """Write a lease, replacing the worker's old one."""

    def renew(self, worker: str) -> None:
        """Change a lease's heartbeat, unless it was dropped."""

    def drop(self, worker: str) -> None:
        """Delete a lease, if it exists."""


class FileLeases:
    """Leases as files, one per worker, for the processes of one machine.

    Args:
        folder: the same for all processes; it is made with the first lock or lease, so that reading leaves no trace.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Wait for the folder's lock, which ends with the process that holds it.

        Raises:
            SettingError: the disk is full or read-only, or the system has no file locks.
        """
        self._make()
        with held(self.folder / LOCK, wait=True):
            yield

    def rows(self) -> list[Lease]:
        """Return all readable leases."""
        found = []
        for path in sorted(self.folder.glob("*.json")):
            with suppress(OSError, ValueError, TypeError):  # also what is too large, or no file
                lease = read_lease(path, heartbeat=path.stat().st_mtime_ns)
                if lease.worker == path.stem:
                    found.append(lease)
        return found

    def put(self, lease: Lease) -> None:
        """Write a lease atomically.

        Raises:
            SettingError: the disk is full or read-only.
        """
        self._make()
        kept = {name: value for name, value in asdict(lease).items() if name != "heartbeat"}
        path, text = self._path(lease.worker), json.dumps(kept) + "\n"
        try:
            atomic_write(path, text)
        except FileNotFoundError:  # a command that starts in the run deletes unfinished files
            with on_disk(self.folder), open(path, "w", encoding="utf-8", opener=not_through) as file:
                file.write(text)

    def renew(self, worker: str) -> None:
        """Touch the lease's file."""
        with suppress(FileNotFoundError):
            os.utime(self._path(worker), follow_symlinks=False)

    def drop(self, worker: str) -> None:
        """Delete a lease."""
        self._path(worker).unlink(missing_ok=True)

    def _make(self) -> None:
        with on_disk(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def _path(self, worker: str) -> Path:
        return self.folder / f"{worker}.json"
