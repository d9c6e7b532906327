"""Workers on one study in PostgreSQL: no trial is lost, none done twice, and a lost worker's is done again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import optuna
import promise
import pytest
import refine_worker
from database import free_port, postgres, programs

from nas_kd.errors import SettingError
from nas_kd.runs.leases import Lease
from nas_kd.runs.workers import Worker
from nas_kd.searcher.lease_table import TableLeases, with_driver

pytestmark = pytest.mark.skipif(programs() is None, reason="PostgreSQL or its driver psycopg is not installed")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with postgres() as found:
        yield found


def test_one_of_four_is_killed(tmp_path: Path, url: str) -> None:
    rows = promise.kill_one_of_four(tmp_path, url)
    study = optuna.load_study(study_name="study", storage=with_driver(url))
    assert [trial.number for trial in study.trials] == [row["number"] for row in rows]
    done = [trial for trial in study.trials if trial.user_attrs["row"]["kind"] == "trial"]
    assert [trial.value for trial in done] == [row["kl"] for row in rows if row["kind"] == "trial"]
    assert TableLeases(url, "study").rows() == []
    # one that would join another search is told in what it differs
    other = replace(refine_worker.group_of(tmp_path, url, "b"), study="other", facts={"supernet": "xyz", "seed": 3})
    with pytest.raises(SettingError, match="the closest search there differs in supernet"):
        refine_worker.search(tmp_path, other, "b")


def test_one_process_is_the_same_as_without_a_database(tmp_path: Path, url: str) -> None:
    alone = refine_worker.search(tmp_path, None, "b", trials=15)
    group = replace(refine_worker.group_of(tmp_path, url, "first"), study="single")
    assert refine_worker.search(tmp_path, group, "first", trials=15) == alone


@pytest.mark.parametrize("attribute", [None, {"row": {"kind": 7}}, {"row": "a text"}, {"row": None}])
def test_trials_of_another_program_are_named(tmp_path: Path, url: str, attribute: dict[str, object] | None) -> None:
    name = f"foreign {attribute}"
    group = replace(refine_worker.group_of(tmp_path, url, "first"), study=name)
    refine_worker.search(tmp_path, group, "first", trials=5)
    study = optuna.load_study(study_name=name, storage=with_driver(url))
    foreign = optuna.trial.create_trial(
        params={"theirs": 0.5}, distributions={"theirs": optuna.distributions.FloatDistribution(0, 1)}, value=1.0
    )
    for key, value in (attribute or {}).items():
        foreign.set_user_attr(key, value)
    study.add_trial(foreign)
    number = len(study.trials) - 1
    for who in ("first", "b"):  # who goes on, and who joins
        group = replace(refine_worker.group_of(tmp_path, url, who), study=name)
        with pytest.raises(SettingError, match=rf"trial {number}.*only nas_kd adds trials.*delete the study"):
            refine_worker.search(tmp_path, group, who, trials=12)


def test_leases_in_a_table(url: str) -> None:
    store = TableLeases(url, "leases")
    other = replace(Lease.own(), worker="other", place="another boot", job="trial 4")
    store.put(other)
    TableLeases(url, "another study").put(replace(other, worker="unseen"))
    with Worker(store, heartbeat=0.05, patience=0.5) as worker:
        assert [row.job for row in worker.others()] == ["trial 4"] and not worker.claim(["trial 4"])
        deadline = time.monotonic() + 60
        while not worker.claim(["trial 4"]):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert worker.holds("trial 4")
        store.renew("other")
        assert [row.worker for row in store.rows()] == [worker.lease.worker]
    assert store.rows() == []


def test_an_absent_database_is_named_without_its_password(tmp_path: Path) -> None:
    group = refine_worker.group_of(tmp_path, f"postgresql://me:secret@127.0.0.1:{free_port()}/none", "first")
    with pytest.raises(SettingError, match=r"search.storage='postgresql://me@127.*a database that responds") as caught:
        refine_worker.search(tmp_path, group, "first")
    assert "secret" not in str(caught.value)
