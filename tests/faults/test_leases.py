"""Leases and the lock of their folder: a fault of the work is not the lock's, and one of a renewal is told."""

from __future__ import annotations

import errno
import fcntl
import itertools
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from beside import until

from nas_kd.errors import SettingError
from nas_kd.runs.folder_lock import folder_lock
from nas_kd.runs.leases import FileLeases, Lease
from nas_kd.runs.lock import NO_LOCKS, held
from nas_kd.runs.workers import Worker


@pytest.mark.parametrize("code", [errno.EACCES, errno.ENOSPC, errno.EAGAIN])
@pytest.mark.parametrize("wait", [True, False])
def test_an_error_of_the_work_stays_what_it_was(tmp_path: Path, wait: bool, code: int) -> None:
    error = OSError(code, "of the work", "elsewhere")
    with pytest.raises(OSError) as caught, held(tmp_path / "lock", wait=wait):  # noqa: PT011, the very object is compared
        raise error
    assert caught.value is error
    with held(tmp_path / "lock", wait=False) as ours:
        assert ours  # the lock went with the error


def test_a_lock_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lock").touch()

    def denied(*given: object, **named: object) -> None:
        raise PermissionError(errno.EACCES, "denied")

    monkeypatch.setattr("builtins.open", denied)
    with pytest.raises(SettingError, match=r"lock.*permission is denied"), held(tmp_path / "lock", wait=True):
        pass


def test_a_second_holder_waits_or_is_told(tmp_path: Path) -> None:
    with held(tmp_path / "lock", wait=False) as first, held(tmp_path / "lock", wait=False) as second:
        assert first and not second


def _hold(path: Path, begun: Event) -> None:
    with held(path, wait=False) as ours:
        assert ours
        begun.set()
        time.sleep(600)


def test_the_lock_of_a_killed_process_is_free_again(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    begun = context.Event()
    process = context.Process(target=_hold, args=(tmp_path / "claims" / "job.lock", begun))
    process.start()
    assert begun.wait(60)
    with held(tmp_path / "claims" / "job.lock", wait=False) as ours:
        assert not ours
    with held(tmp_path / "claims" / "other.lock", wait=False) as ours:
        assert ours
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    with held(tmp_path / "claims" / "job.lock", wait=True) as ours:
        assert ours
    process.join()


@pytest.mark.parametrize("code", NO_LOCKS)
def test_a_disk_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def none(*given: object) -> None:
        raise OSError(code, "no locks")

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(SettingError, match="a system with file locks"), held(tmp_path / "lock", wait=True):
        pass
    with folder_lock(tmp_path, None, lambda line: None):  # which has notes to go by
        pass


def test_a_lease_that_cannot_be_renewed_is_told_once_and_tried_again(tmp_path: Path) -> None:
    told: list[str] = []
    tries: list[str] = []

    class Away(FileLeases):
        """Away at first, as a folder on another machine may be."""

        def renew(self, worker: str) -> None:
            tries.append(worker)
            if len(told) < 1 or len(tries) < 60:
                raise OSError(errno.EIO, "input/output error")
            super().renew(worker)

    def say(line: str) -> None:
        told.append(line)
        raise OSError(errno.ENOSPC, "and the log is full")

    with Worker(Away(tmp_path), heartbeat=0.005, patience=0.1, log=say) as worker:
        (first,) = worker.store.rows()
        until(lambda: worker.store.rows()[0].heartbeat != first.heartbeat)
    (line,) = told
    assert line.startswith(f"warning: {worker.lease} has not renewed its lease for ") and "input/output" in line


def test_a_worker_lost_between_two_looks_keeps_its_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever its patience runs out, a job is taken only together with the row that had it."""
    now = itertools.count(0.0, 0.3)  # every look at the clock is 0.3 s later
    monkeypatch.setattr("nas_kd.runs.workers.time.monotonic", lambda: next(now))
    store = FileLeases(tmp_path)
    store.put(replace(Lease.own(), worker="other", place="another boot", job="trial 4"))
    worker, taken = Worker(store, patience=0.8), []
    for _ in range(5):
        taken.append(worker.claim(["trial 4"]) is not None)
        assert taken[-1] == ("other" not in {row.worker for row in store.rows()})
    assert not taken[0] and taken[-1] and worker.holds("trial 4")
