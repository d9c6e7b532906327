"""Workers that share units of work: each claims one, does it and records it; a lost worker's unit is free again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Protocol, TypeVar

from nas_kd.runs.leases import HEARTBEAT, PATIENCE, Lease, LeaseStore

ResultT = TypeVar("ResultT")


class Worker:
    """A worker with a lease that a thread renews while the process lives.

    Use it as a context manager. Another worker counts as lost when its process is known to have ended, or when its
    lease was not renewed for ``patience`` on the observer's own clock: clocks of machines are never compared.

    Args:
        store: storage of the leases.
        heartbeat: seconds between renewals.
        patience: seconds without a renewal after which another worker counts as lost.
        log: receives a line when another worker is lost, or when this one cannot renew its lease.
    """

    def __init__(
        self,
        store: LeaseStore,
        heartbeat: float = HEARTBEAT,
        patience: float = PATIENCE,
        log: Callable[[str], None] | None = None,
    ) -> None:
        self.store = store
        self.heartbeat = heartbeat
        self.patience = patience
        self.log = log
        self.lease = Lease.own()
        self._seen: dict[str, tuple[int, float]] = {}  # worker -> its last heartbeat, and when it was first seen
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> Worker:
        self.store.put(self.lease)
        self._thread.start()
        return self

    def __exit__(self, *rest: object) -> None:
        self._stop.set()
        self._thread.join()
        with suppress(Exception):  # an error of the work must not be hidden; the lease expires by itself
            self.store.drop(self.lease.worker)

    def _renew(self) -> None:
        renewed = time.monotonic()
        warned = False
        while not self._stop.wait(self.heartbeat):
            try:
                self.store.renew(self.lease.worker)
                renewed = time.monotonic()
                warned = False
            except Exception as error:  # a database may be briefly unavailable; code that needs it raises its own error
                silent = time.monotonic() - renewed
                if silent > self.patience and not warned and self.log is not None:
                    warned = True
                    with suppress(Exception):  # the disk may be full as well
                        self.log(f"warning: {self.lease} has not renewed its lease for {silent:.0f} s: {error}")

    def others(self) -> list[Lease]:
        """Return the leases of the other workers that are not lost."""
        return self._observe()[0]

    def _observe(self) -> tuple[list[Lease], list[Lease]]:
        """Return the leases of the others at one moment: those that are not lost, and those that are."""
        leases = [lease for lease in self.store.rows() if lease.worker != self.lease.worker]
        self._seen = {lease.worker: self._seen[lease.worker] for lease in leases if lease.worker in self._seen}
        lost = [lease for lease in leases if self._lost(lease)]
        return [lease for lease in leases if lease not in lost], lost

    def _lost(self, lease: Lease) -> bool:
        if lease.dead():
            return True
        now = time.monotonic()
        heartbeat, since = self._seen.get(lease.worker, (lease.heartbeat, now))
        self._seen[lease.worker] = (lease.heartbeat, now if heartbeat != lease.heartbeat else since)
        return now - self._seen[lease.worker][1] > self.patience

    def claim(self, units: Iterable[str]) -> str | None:
        """Claim the first unit that no other worker holds; call it under the store's lock.

        Leases of lost workers are deleted first: one that comes back after all finds that it `holds` nothing.

        Args:
            units: names in the order in which to claim them.

        Returns:
            The claimed unit; None if others hold all.
        """
        busy = {lease.job for lease in self.sweep()}
        unit = next((unit for unit in units if unit not in busy), None)
        if unit is not None:
            self._put(unit)
        return unit

    def sweep(self) -> list[Lease]:
        """Delete the leases of lost workers and return those of the others; call it under the store's lock."""
        leases, lost = self._observe()  # observed once: a worker lost a moment later keeps its lease and unit
        for lease in lost:
            self.store.drop(lease.worker)
            if lease.job and self.log is not None:
                self.log(f"worker {lease} is lost: {lease.job} is free again")
        return leases

    def holds(self, unit: str) -> bool:
        """Return whether this worker still holds a unit; call it under the store's lock."""
        return any(lease.worker == self.lease.worker and lease.job == unit for lease in self.store.rows())

    def release(self) -> None:
        """Release the claimed unit; call it under the store's lock."""
        self._put("")

    def _put(self, job: str) -> None:
        self.lease = replace(self.lease, job=job)
        self.store.put(self.lease)


class Units(Protocol[ResultT]):
    """Work that several workers share, unit by unit; every method but `do` is called under the lock of the leases."""

    def free(self) -> Iterable[str]:
        """Yield the units that are not recorded, in order; iterating may create new ones."""

    def wait(self) -> float | None:
        """Return how many seconds to wait while others hold all remaining units; None when all are recorded."""

    def begin(self, unit: str) -> None:
        """Prepare a claimed unit, with what a lost worker left of it."""

    def do(self, unit: str) -> ResultT | None:
        """Process a unit and return its result; None abandons it."""

    def record(self, unit: str, result: ResultT) -> None:
        """Record the result of a unit, unless it is recorded already."""


def share(worker: Worker, units: Units[ResultT]) -> None:
    """Process units together with other workers until all are recorded.

    No unit is lost: another worker resumes the unit of a lost one. None is recorded twice: a worker that was wrongly
    taken for lost records nothing.
    """
    while True:
        pause: float | None = 0.0
        with worker.store.lock():
            unit = worker.claim(units.free())
            if unit is not None:
                units.begin(unit)
            else:
                pause = units.wait()
        if pause is None:
            return
        if unit is None:
            time.sleep(pause)
            continue
        result = units.do(unit)
        with worker.store.lock():
            if result is not None and worker.holds(unit):
                units.record(unit, result)
            worker.release()
