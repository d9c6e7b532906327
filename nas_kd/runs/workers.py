"""Who works on what: lease rows that workers renew, and by which the others find out that one is lost."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from nas_kd.errors import SettingError
from nas_kd.runs.files import on_disk

BEAT = 10.0  # seconds between two renewals of a lease
PATIENCE = 30.0  # seconds without a renewal after which a worker counts as lost
LOCK = "lock"  # the file in a folder of leases whose lock makes decisions one at a time


@dataclass(frozen=True)
class Lease:
    """A worker's row.

    Args:
        worker: its id, never used twice.
        pid: its process.
        host: its machine's name.
        place: where the pid means something: this boot of this machine, and the pid namespace.
        started: when the process began, in the kernel's ticks: a pid is given again, this is not.
        job: what it is doing; empty between two jobs.
        beat: changes with every renewal; its value says nothing.
    """

    worker: str
    pid: int
    host: str
    place: str
    started: str
    job: str = ""
    beat: int = 0

    @staticmethod
    def own() -> Lease:
        """Return a new row for this process."""
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
    """Keeps lease rows; every decision that rests on them is made under its lock."""

    def lock(self) -> AbstractContextManager[None]:
        """Return a context of which one at a time is entered; a process that ends leaves it."""

    def rows(self) -> list[Lease]:
        """Return all rows."""

    def put(self, lease: Lease) -> None:
        """Write a row, in the place of the worker's old one."""

    def renew(self, worker: str) -> None:
        """Change a row's beat; one that was dropped stays so."""

    def drop(self, worker: str) -> None:
        """Delete a row, if it is there."""


class FileLeases:
    """Lease rows as files, one a worker, for the processes of one machine.

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
                found.append(Lease(**json.loads(path.read_text()), beat=path.stat().st_mtime_ns))
        return found

    def put(self, lease: Lease) -> None:
        """Write a row, whole or not at all."""
        kept = {name: value for name, value in asdict(lease).items() if name != "beat"}
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


def file_locks() -> bool:
    """Tell whether the system has file locks; Windows has none of this kind."""
    return find_spec("fcntl") is not None


@contextmanager
def held(path: Path, wait: bool) -> Iterator[bool]:
    """Lock a file unless another process has it locked; a lock ends with the process that holds it.

    Args:
        path: the file, made when absent.
        wait: wait for the other process.

    Returns:
        A context that says whether the lock is ours while it lasts.

    Raises:
        SettingError: the system has no file locks, or the file cannot be written.
    """
    try:
        import fcntl
    except ImportError as error:  # Windows
        legal = "a system with file locks, when several processes share a folder"
        raise SettingError("run", str(path.parent), legal, "use one on Linux or macOS") from error
    with ExitStack() as opened:
        with on_disk(path):  # not around what is done under the lock: errors of that are of other files
            file = opened.enter_context(open(path, "w"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                ours = True
            except BlockingIOError:
                ours = False
        yield ours


class Seat:
    """A worker's place among the others: its lease, which a thread renews while the process lives.

    Use it as a context manager. A worker is lost when its process is gone, where that can be seen, or when its
    row was not renewed for a while by the observer's own clock: clocks of machines are never compared.

    Args:
        store: where the leases lie.
        beat: seconds between two renewals.
        patience: seconds without a renewal after which another worker counts as lost.
        say: told of workers that are lost, and when this one cannot renew its lease and will be taken for lost.
    """

    def __init__(
        self,
        store: LeaseStore,
        beat: float = BEAT,
        patience: float = PATIENCE,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.store = store
        self.beat = beat
        self.patience = patience
        self.say = say
        self.lease = Lease.own()
        self._seen: dict[str, tuple[int, float]] = {}  # worker -> its last beat, and when it was first seen
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> Seat:
        self.store.put(self.lease)
        self._thread.start()
        return self

    def __exit__(self, *rest: object) -> None:
        self._stop.set()
        self._thread.join()
        with suppress(Exception):  # what ended the work is the error to be seen; the row runs out by itself
            self.store.drop(self.lease.worker)

    def _renew(self) -> None:
        renewed = time.monotonic()
        told = False
        while not self._stop.wait(self.beat):
            try:
                self.store.renew(self.lease.worker)
                renewed = time.monotonic()
                told = False
            except Exception as error:  # a database may be away for a moment; who needs it meanwhile ends by it
                silent = time.monotonic() - renewed
                if silent > self.patience and not told and self.say is not None:
                    told = True
                    with suppress(Exception):  # the disk may be full as well
                        self.say(f"warning: {self.lease} has not renewed its lease for {silent:.0f} s: {error}")

    def others(self) -> list[Lease]:
        """Return the rows of the other workers that are not lost."""
        return self._looked()[0]

    def _looked(self) -> tuple[list[Lease], list[Lease]]:
        """Return the others' rows by one look: those that are not lost, and those that are."""
        rows = [row for row in self.store.rows() if row.worker != self.lease.worker]
        self._seen = {row.worker: self._seen[row.worker] for row in rows if row.worker in self._seen}
        lost = [row for row in rows if self._lost(row)]
        return [row for row in rows if row not in lost], lost

    def _lost(self, row: Lease) -> bool:
        if row.dead():
            return True
        now = time.monotonic()
        beat, since = self._seen.get(row.worker, (row.beat, now))
        self._seen[row.worker] = (row.beat, now) if beat != row.beat else (beat, since)
        return now - self._seen[row.worker][1] > self.patience

    def take(self, job: str) -> bool:
        """Take a job unless another worker has it; call it under the store's lock.

        A lost worker's row is deleted first: should it come back after all, it finds that it `holds` nothing.

        Args:
            job: its name.

        Returns:
            Whether it is ours.
        """
        if any(row.job == job for row in self.sweep()):
            return False
        self._put(job)
        return True

    def sweep(self) -> list[Lease]:
        """Delete the rows of workers that are lost, and return the others'; call it under the store's lock."""
        rows, lost = self._looked()  # one look: who is lost a moment later still has a row, and his job
        for row in lost:
            self.store.drop(row.worker)
            if row.job and self.say is not None:
                self.say(f"worker {row} is lost: {row.job} is free again")
        return rows

    def holds(self, job: str) -> bool:
        """Tell whether a job is still ours; call it under the store's lock.

        Args:
            job: its name.
        """
        return any(row.worker == self.lease.worker and row.job == job for row in self.store.rows())

    def free(self) -> None:
        """Give the job up; call it under the store's lock."""
        self._put("")

    def _put(self, job: str) -> None:
        self.lease = replace(self.lease, job=job)
        self.store.put(self.lease)
