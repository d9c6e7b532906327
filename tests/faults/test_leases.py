"""Leases and the lock of their folder: a fault of the work is not the lock's, and one of a renewal is told."""

from __future__ import annotations

import errno
import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from beside import until

from nas_kd.errors import SettingError
from nas_kd.runs.workers import FileLeases, Lease, Seat, held


@pytest.mark.parametrize("code", [errno.EACCES, errno.ENOSPC, errno.EAGAIN])
@pytest.mark.parametrize("wait", [True, False])
def test_an_error_of_the_work_stays_what_it_was(tmp_path: Path, wait: bool, code: int) -> None:
    error = OSError(code, "of the work", "elsewhere")
    with pytest.raises(OSError) as caught, held(tmp_path / "lock", wait):  # noqa: PT011, the very object is compared
        raise error
    assert caught.value is error
    with held(tmp_path / "lock", wait=False) as ours:
        assert ours  # the lock went with the error


def test_a_lock_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lock").touch()

    def denied(*given: object) -> None:
        raise PermissionError(errno.EACCES, "denied")

    monkeypatch.setattr("builtins.open", denied)
    with pytest.raises(SettingError, match=r"lock.*permission is denied"), held(tmp_path / "lock", wait=True):
        pass


def test_a_second_holder_waits_or_is_told(tmp_path: Path) -> None:
    with held(tmp_path / "lock", wait=False) as first, held(tmp_path / "lock", wait=False) as second:
        assert first and not second


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

    with Seat(Away(tmp_path), beat=0.005, patience=0.1, say=say) as seat:
        (first,) = seat.store.rows()
        until(lambda: seat.store.rows()[0].beat != first.beat)
    (line,) = told
    assert line.startswith(f"warning: {seat.lease} has not renewed its lease for ") and "input/output" in line


def test_a_worker_lost_between_two_looks_keeps_its_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever its patience runs out, a job is taken only together with the row that had it."""
    now = itertools.count(0.0, 0.3)  # every look at the clock is 0.3 s later
    monkeypatch.setattr("nas_kd.runs.workers.time.monotonic", lambda: next(now))
    store = FileLeases(tmp_path)
    store.put(replace(Lease.own(), worker="other", place="another boot", job="trial 4"))
    seat, taken = Seat(store, patience=0.8), []
    for _ in range(5):
        taken.append(seat.take("trial 4"))
        assert taken[-1] == ("other" not in {row.worker for row in store.rows()})
    assert not taken[0] and taken[-1] and seat.holds("trial 4")
