"""The lock of a run folder: who works in it, also on machines that no file lock reaches."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

from nas_kd.errors import SettingError
from nas_kd.runs.files import on_disk
from nas_kd.runs.leases import HEARTBEAT, PATIENCE, Lease
from nas_kd.runs.lock import flock


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

    A file lock ends with its process, so that a dead one's is never in the way. For machines that the lock
    does not reach, and for messages, the holder leaves a note and renews it: a note of a dead process, or one
    that nobody renews, is stale and taken over.

    Args:
        folder: the folder.
        part: a job that goes together with others in the folder, but not with itself; None goes alone.
        log: takes a line about a stale lock, and about waiting to see whether one is.
        heartbeat: seconds between two renewals.
        patience: seconds without a renewal after which another machine's lock is stale.

    Raises:
        SettingError: another command is working in the folder.
    """
    notes = folder.glob(".lock.*") if part is None else (folder / f".lock.{name}" for name in ("all", part))
    mine = folder / f".lock.{part or 'all'}"
    with ExitStack() as open_files:
        with on_disk(folder):
            whole, own = (open_files.enter_context(open(path, "a")) for path in (folder / ".lock", mine))
        sure = flock(whole, wait=False, shared=part is not None) and flock(own, wait=False)
        if sure is False:
            raise _refused(folder, next(filter(None, map(_read, sorted(folder.glob(".lock.*")))), None))
        for note in sorted(notes):
            _take_over(note, folder, bool(sure), log, patience)
        with on_disk(mine):
            mine.write_text(json.dumps(asdict(Lease.own())) + "\n")
        ended = threading.Event()
        renewing = threading.Thread(target=_renew, args=(mine, ended, heartbeat), daemon=True)
        renewing.start()
        try:
            yield
        finally:
            ended.set()
            renewing.join()
            with on_disk(mine):
                os.truncate(mine, 0)


def _read(note: Path) -> Lease | None:
    """Read who holds a lock; None where nobody does, or a kill tore the note."""
    try:
        return Lease(**json.loads(note.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _take_over(note: Path, folder: Path, sure: bool, log: Callable[[str], None], patience: float) -> None:
    """Clear a stale note; refuse while another holder is alive."""
    holder = _read(note)
    here = Lease.own()
    if holder is None:
        return
    who = f"process {holder.pid} on {holder.host}"
    near = holder.place.split()[0] == here.place.split()[0]  # the same boot of the same kernel
    if not (near and sure) and not holder.dead():
        begun = time.monotonic()
        seen = note.stat().st_mtime_ns
        os.utime(folder / ".lock")
        age = max(0.0, ((folder / ".lock").stat().st_mtime_ns - seen) / 1e9)  # both by the file system's clock
        if age < patience:
            log(f"{folder} is locked by {who}: waiting up to {patience - age:.0f} s to see whether it lives")
        while age + time.monotonic() - begun < patience:
            time.sleep(min(1.0, patience / 10))
            if note.stat().st_mtime_ns != seen:
                raise _refused(folder, _read(note) or holder)
    log(f"the lock of {who}, which has ended without a word, is stale: taken over")
    os.truncate(note, 0)


def _refused(folder: Path, holder: Lease | None) -> SettingError:
    who = f" (process {holder.pid} on {holder.host} is)" if holder is not None else ""
    expected = f"a folder no other command is working in{who}"
    return SettingError("run", str(folder), expected, "wait for it, or use another --run")


def _renew(note: Path, ended: threading.Event, heartbeat: float) -> None:
    while not ended.wait(heartbeat):
        try:
            os.utime(note)
        except OSError:  # a network file system may be away for a moment
            continue
