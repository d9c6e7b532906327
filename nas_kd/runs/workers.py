"""Workers that share units of work: each claims one, does it and records it; what a lost one had is free again."""

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
    """A worker among others: its lease, which a thread renews while the process lives.

    Use it as a context manager. A worker is lost when its process is gone, where that can be seen, or when its
    lease was not renewed for a while by the observer's own clock: clocks of machines are never compared.

    Args:
        store: where the leases lie.
        heartbeat: seconds between two renewals.
        patience: seconds without a renewal after which another worker counts as lost.
        log: takes a line when another is lost, and when this one cannot renew its lease and will be taken for lost.
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
        with suppress(Exception):  # what ended the work is the error to be seen; the lease runs out by itself
            self.store.drop(self.lease.worker)

    def _renew(self) -> None:
        renewed = time.monotonic()
        warned = False
        while not self._stop.wait(self.heartbeat):
            try:
                self.store.renew(self.lease.worker)
                renewed = time.monotonic()
                warned = False
            except Exception as error:  # a database may be away for a moment; who needs it meanwhile ends by it
                silent = time.monotonic() - renewed
                if silent > self.patience and not warned and self.log is not None:
                    warned = True
                    with suppress(Exception):  # the disk may be full as well
                        self.log(f"warning: {self.lease} has not renewed its lease for {silent:.0f} s: {error}")

    def others(self) -> list[Lease]:
        """Return the leases of the other workers that are not lost."""
        return self._looked()[0]

    def _looked(self) -> tuple[list[Lease], list[Lease]]:
        """Return the others' leases by one look: those that are not lost, and those that are."""
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
        """Claim the first unit that no other worker has; call it under the store's lock.

        A lost worker's lease is deleted first: should it come back after all, it finds that it `holds` nothing.

        Args:
            units: their names, in the order of their turns.

        Returns:
            The unit that is ours now; None where others have all.
        """
        busy = {lease.job for lease in self.sweep()}
        unit = next((unit for unit in units if unit not in busy), None)
        if unit is not None:
            self._put(unit)
        return unit

    def sweep(self) -> list[Lease]:
        """Delete the leases of workers that are lost, and return the others'; call it under the store's lock."""
        leases, lost = self._looked()  # one look: who is lost a moment later still has a lease, and his unit
        for lease in lost:
            self.store.drop(lease.worker)
            if lease.job and self.log is not None:
                self.log(f"worker {lease} is lost: {lease.job} is free again")
        return leases

    def holds(self, unit: str) -> bool:
        """Tell whether a unit is still ours; call it under the store's lock."""
        return any(lease.worker == self.lease.worker and lease.job == unit for lease in self.store.rows())

    def release(self) -> None:
        """Give up what is in hand; call it under the store's lock."""
        self._put("")

    def _put(self, job: str) -> None:
        self.lease = replace(self.lease, job=job)
        self.store.put(self.lease)


class Units(Protocol[ResultT]):
    """Work that several workers share, unit by unit; every call but `do` is made under the lock of their leases."""

    def free(self) -> Iterable[str]:
        """Yield the units that nobody has recorded, in the order of their turns; a new one may be made on the way."""

    def wait(self) -> float | None:
        """Return the seconds until another look where others have all units in hand; None when all are recorded."""

    def begin(self, unit: str) -> None:
        """Make a claimed unit ready, with what a lost worker left of it."""

    def do(self, unit: str) -> ResultT | None:
        """Do a unit; None gives it up."""

    def record(self, unit: str, result: ResultT) -> None:
        """Keep what a unit gave, unless it is kept already."""


def share(worker: Worker, units: Units[ResultT]) -> None:
    """Process units together with other workers until all are recorded.

    No unit is lost: who is lost holds nothing, and another begins where he was. None counts twice: who was taken for
    lost and comes back records nothing.

    Args:
        worker: this process's place among the others.
        units: the work.
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
