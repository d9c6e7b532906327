"""The lock of a run folder, also between machines that share no file locks."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from nas_kd.errors import SettingError
from nas_kd.runs.files import on_disk
from nas_kd.runs.leases import HEARTBEAT, PATIENCE, Lease, read_lease
from nas_kd.runs.links import not_through
from nas_kd.runs.lock import flock
from nas_kd.runtime.repeated import repeated


@contextmanager
def folder_lock(
    folder: Path,
    part: str | None,
    log: Callable[[str], None],
    *,
    heartbeat: float = HEARTBEAT,
    patience: float = PATIENCE,
) -> Iterator[None]:
    """Keep other commands from working in a folder.

    A file lock ends with its process, so a dead process never blocks the folder. For machines that the lock
    does not reach, and for messages, the holder also writes a lease and renews it; the lease of a dead process, or
    one that is no longer renewed, is stale and taken over.

    Args:
        part: a job that may run beside other jobs in the folder, but only once; None excludes all others.
        log: receives a line when a stale lock is taken over, or while waiting to see whether it is stale.
        heartbeat: seconds between renewals.
        patience: seconds without a renewal after which another machine's lock is stale.

    Raises:
        SettingError: another command is using the folder.
    """
    notes = folder.glob(".lock.*") if part is None else (folder / f".lock.{name}" for name in ("all", part))
    mine = folder / f".lock.{part or 'all'}"
    with ExitStack() as open_files:
        with on_disk(folder):
            whole, own = (
                open_files.enter_context(open(path, "ab", opener=not_through)) for path in (folder / ".lock", mine)
            )
        sure = flock(whole, wait=False, shared=part is not None) and flock(own, wait=False)
        if sure is False:
            raise _refused(folder, next(filter(None, map(holder_of, sorted(folder.glob(".lock.*")))), None))
        for note in sorted(notes):
            _take_over(note, folder, bool(sure), log, patience)
        with on_disk(mine):
            own.truncate(0)
            os.write(own.fileno(), f"{json.dumps(asdict(Lease.own()))}\n".encode())
        try:
            with repeated(lambda: _renew(mine), heartbeat):
                yield
        finally:
            with on_disk(mine):
                own.truncate(0)


def holder_of(note: Path) -> Lease | None:
    """Return the holder of a lock; None if there is none, or a kill left the file incomplete."""
    try:
        return read_lease(note)
    except (OSError, ValueError):
        return None


def _take_over(note: Path, folder: Path, sure: bool, log: Callable[[str], None], patience: float) -> None:
    """Clear a stale lease; raise if its holder is alive."""
    holder = holder_of(note)
    here = Lease.own()
    if holder is None:
        return
    who = f"process {holder.pid} on {holder.host}"
    near = holder.place.split()[0] == here.place.split()[0]  # the same boot of the same kernel
    if not (near and sure) and not holder.dead():
        begun = time.monotonic()
        seen = note.stat().st_mtime_ns
        os.utime(folder / ".lock", follow_symlinks=False)
        age = max(0.0, ((folder / ".lock").stat().st_mtime_ns - seen) / 1e9)  # both on the file system's clock
        if age < patience:
            log(f"{folder} is locked by {who}: waiting up to {patience - age:.0f} s to see whether it is alive")
        while age + time.monotonic() - begun < patience:
            time.sleep(min(1.0, patience / 10))
            if note.stat().st_mtime_ns != seen:
                raise _refused(folder, holder_of(note) or holder)
    log(f"taking over the stale lock of {who}, which ended without releasing it")
    with open(note, "rb+", opener=not_through) as file:
        file.truncate(0)


def _refused(folder: Path, holder: Lease | None) -> SettingError:
    who = f" (process {holder.pid} on {holder.host} is)" if holder is not None else ""
    expected = f"a folder that no other command uses{who}"
    return SettingError("run", str(folder), expected, "wait for it, or use another --run")


def _renew(note: Path) -> None:
    with suppress(OSError):  # a network file system may be briefly unavailable
        os.utime(note, follow_symlinks=False)
