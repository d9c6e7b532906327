"""Workers on one study in a journal: no trial is lost, none done twice, and a lost worker's is done again."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import optuna
import promise
import pytest
import refine_worker

from nas_kd.errors import SettingError
from nas_kd.runs.leases import FileLeases, Lease
from nas_kd.runs.workers import Worker
from nas_kd.searcher.shared import journal_trials, persist, row_of


@pytest.mark.parametrize("killed", ["c", "first"])
def test_one_of_four_is_killed(tmp_path: Path, killed: str) -> None:
    rows = promise.kill_one_of_four(tmp_path, killed=killed)
    trials = journal_trials(tmp_path / "study.journal", "study")
    named = [{name: row[f"i_{i}"] for i, name in enumerate(refine_worker.NAMES, 1)} for row in rows]
    assert [trial.params for trial in trials] == named
    assert [trial.value for trial in trials if trial.user_attrs["row"]["kind"] == "trial"] == [
        row["kl"] for row in rows if row["kind"] == "trial"
    ]
    if killed == "first":  # started again it takes over what the others did, and evaluates nothing
        before = refine_worker.calls(tmp_path)
        again = refine_worker.search(tmp_path, refine_worker.group_of(tmp_path, None, "first"), "first")
        assert again == rows == refine_worker.kept_rows(tmp_path) and refine_worker.calls(tmp_path) == before


def test_one_process_with_a_place_to_meet_is_one_process(tmp_path: Path) -> None:
    for name in ("alone", "met"):
        (tmp_path / name).mkdir()
    alone = refine_worker.search(tmp_path / "alone", None, "first")
    group = refine_worker.group_of(tmp_path / "met", None, "first")
    assert refine_worker.search(tmp_path / "met", group, "first") == alone
    # and so is one that shares its study from the first trial on, with others that never do anything
    shared = replace(refine_worker.group_of(tmp_path, None, "first"), patience=1000.0)
    other = Lease.own()
    shared.leases.put(other)
    assert refine_worker.search(tmp_path, shared, "first") == alone
    assert len(journal_trials(tmp_path / "study.journal", "study")) == len(alone)


def test_a_kill_while_alone_loses_no_row_to_a_helper(tmp_path: Path) -> None:
    """Between two writes to the journal the kept rows are ahead of it: who comes then takes them up."""
    first = promise.start(tmp_path, "first", together=1, hangs=8)
    promise.begun(tmp_path, "first", 8, {"first": first})
    first.kill()
    first.wait()
    kept = refine_worker.kept_rows(tmp_path)
    assert len(kept) >= 7 and not journal_trials(tmp_path / "study.journal", "study")
    rows = refine_worker.search(tmp_path, refine_worker.group_of(tmp_path, None, "b"), "b")
    assert rows[: len(kept)] == kept
    ended = [tuple(call["point"]) for call in refine_worker.calls(tmp_path) if call["what"] == "end"]
    assert len(ended) == len(set(ended)) == refine_worker.TRIALS


def test_a_study_from_before_variables_had_names_is_taken_up(tmp_path: Path) -> None:
    group = refine_worker.group_of(tmp_path, None, "first")
    alone = refine_worker.search(tmp_path, group, "first")
    journal = tmp_path / "study.journal"
    for name, place in zip(refine_worker.NAMES, ("i_1", "i_2", "i_3"), strict=True):
        journal.write_text(journal.read_text().replace(name, place))
    trials = journal_trials(journal, "study")
    assert all(trial.params.keys() == {"i_1", "i_2", "i_3"} for trial in trials)
    for number, (trial, row) in enumerate(zip(trials, alone, strict=True)):
        older = row_of(number, trial, refine_worker.NAMES)
        assert {name: older[name] for name in row} == row


def test_half_a_line_in_the_journal_is_cut(tmp_path: Path) -> None:
    study, journal = optuna.create_study(), tmp_path / "study.journal"
    for value in range(3):
        study.add_trial(optuna.trial.create_trial(value=float(value)))
    persist(study, journal, "study")
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-30])
    assert [trial.value for trial in journal_trials(journal, "study")] == [0.0, 1.0]
    persist(study, journal, "study")
    assert [trial.value for trial in journal_trials(journal, "study")] == [0.0, 1.0, 2.0]


# ---- leases ----------------------------------------------------------------------------------------------


def elsewhere(lease: Lease) -> Lease:
    """A worker of another machine: whether its process lives cannot be seen."""
    return replace(lease, worker=f"{lease.worker}-elsewhere", place="another boot", pid=1, started="0")


def test_a_worker_of_another_machine_is_lost_when_it_stops_renewing(tmp_path: Path) -> None:
    store, said = FileLeases(tmp_path), []
    other = replace(elsewhere(Lease.own()), job="trial 7")
    store.put(other)
    with Worker(store, heartbeat=0.05, patience=0.4, log=said.append) as worker:
        for _ in range(8):  # it renews for longer than patience
            time.sleep(0.1)
            store.renew(other.worker)
            assert not worker.claim(["trial 7"]) and [row.worker for row in worker.others()] == [other.worker]
        deadline = time.monotonic() + 60
        while not worker.claim(["trial 7"]):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert worker.holds("trial 7") and not said[1:] and "trial 7 is free again" in said[0]
        store.renew(other.worker)  # it comes back too late, and its row is gone
        assert [row.worker for row in store.rows()] == [worker.lease.worker]
    assert store.rows() == []


def test_who_was_taken_for_lost_holds_nothing(tmp_path: Path) -> None:
    store = FileLeases(tmp_path)
    with Worker(store, heartbeat=1000.0) as slow, Worker(store, heartbeat=0.05, patience=0.2) as quick:
        with store.lock():
            assert slow.claim(["trial 1"])
        deadline = time.monotonic() + 60
        while not quick.claim(["trial 1"]):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert not slow.holds("trial 1") and quick.holds("trial 1")
        slow.release()  # and may take the next job
        assert slow.claim(["trial 2"]) and not quick.claim(["trial 2"])


def test_a_process_that_is_gone_is_lost_at_once(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        time.sleep(600)
        os._exit(0)
    lease = replace(Lease.own(), worker="child", pid=pid)
    started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    assert not replace(lease, started=started).dead()
    assert replace(lease, started=str(int(started) + 1)).dead()  # the pid was given again
    os.kill(pid, 9)
    while not replace(lease, started=started).dead():  # a zombie: nobody has waited for it
        time.sleep(0.01)
    os.waitpid(pid, 0)
    assert replace(lease, started=started).dead()


def test_one_job_is_taken_once(tmp_path: Path) -> None:
    store, taken = FileLeases(tmp_path), []

    def work(worker: Worker) -> None:
        with worker.store.lock():
            if worker.claim(["trial 3"]):
                taken.append(worker)

    workers = [Worker(FileLeases(tmp_path)) for _ in range(8)]
    for worker in workers:
        worker.__enter__()
    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 1 and sum(row.job == "trial 3" for row in store.rows()) == 1
    for worker in workers:
        worker.__exit__()


def test_half_a_lease_is_nobodys(tmp_path: Path) -> None:
    store = FileLeases(tmp_path)
    store.put(Lease.own())
    (tmp_path / "torn.json").write_text(json.dumps({"worker": "torn"})[:10])
    assert len(store.rows()) == 1


def test_a_study_of_another_program_is_refused(tmp_path: Path) -> None:
    study = optuna.create_study()
    study.add_trial(optuna.trial.create_trial(value=1.0))
    persist(study, tmp_path / "study.journal", "study")
    with pytest.raises(SettingError, match="only nas_kd adds trials"):
        refine_worker.search(tmp_path, refine_worker.group_of(tmp_path, None, "first"), "first")
