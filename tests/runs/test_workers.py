"""The loop over units of work, whatever the units are."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from nas_kd.runs.leases import FileLeases, Lease
from nas_kd.runs.workers import Worker, share


class Numbers:
    """Units in memory that any number of threads share."""

    def __init__(self, count: int) -> None:
        self.units = [f"unit {number}" for number in range(count)]
        self.recorded: dict[str, str] = {}
        self.begun: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.fails: Counter[str] = Counter()

    def free(self) -> list[str]:
        return [unit for unit in self.units if unit not in self.recorded]

    def wait(self) -> float | None:
        return 0.01 if self.free() else None

    def begin(self, unit: str) -> None:
        self.begun[unit] += 1

    def do(self, unit: str) -> str | None:
        self.done[unit] += 1
        if self.fails[unit]:
            self.fails[unit] -= 1
            return None
        return f"done {unit}"

    def record(self, unit: str, result: str) -> None:
        assert unit not in self.recorded
        self.recorded[unit] = result


def help_with(numbers: Numbers, folder: Path) -> None:
    with Worker(FileLeases(folder)) as worker:
        share(worker, numbers)


def test_every_unit_is_done_once_by_whoever_comes(tmp_path: Path) -> None:
    numbers = Numbers(40)
    threads = [threading.Thread(target=help_with, args=(numbers, tmp_path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert numbers.recorded == {unit: f"done {unit}" for unit in numbers.units}
    assert set(numbers.begun.values()) == set(numbers.done.values()) == {1}
    assert FileLeases(tmp_path).rows() == []


def test_a_unit_that_is_given_up_is_free_again(tmp_path: Path) -> None:
    numbers = Numbers(3)
    numbers.fails["unit 1"] = 2
    help_with(numbers, tmp_path)
    assert numbers.done == {"unit 0": 1, "unit 1": 3, "unit 2": 1} and len(numbers.recorded) == 3


def test_a_unit_that_another_has_is_waited_for_and_taken_over_when_he_is_lost(tmp_path: Path) -> None:
    numbers, log = Numbers(2), []
    store = FileLeases(tmp_path)
    store.put(replace(Lease.own(), worker="other", place="another boot", job="unit 0"))
    with Worker(store, heartbeat=0.05, patience=0.3, log=log.append) as worker:
        share(worker, numbers)
    assert list(numbers.recorded) == ["unit 1", "unit 0"]
    (line,) = log
    assert "is lost: unit 0 is free again" in line


def test_who_lost_his_lease_records_nothing(tmp_path: Path) -> None:
    store = FileLeases(tmp_path)

    class Late(Numbers):
        def do(self, unit: str) -> str | None:
            if not self.done:
                for lease in store.rows():  # another took this worker for lost
                    store.drop(lease.worker)
            return super().do(unit)

    numbers = Late(1)
    help_with(numbers, tmp_path)
    assert numbers.done["unit 0"] == 2 and list(numbers.recorded) == ["unit 0"]


def test_an_error_of_the_work_ends_the_worker_and_frees_the_unit(tmp_path: Path) -> None:
    class Broken(Numbers):
        def do(self, unit: str) -> str | None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        help_with(Broken(2), tmp_path)
    assert FileLeases(tmp_path).rows() == []
