"""The option --worker on a real run: a helper joins a search that is going, is killed, and nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from beside import LIMIT, leases, started, until
from database import postgres, programs
from forks import Forks
from small_run import Made, Said, environment
from sqlalchemy import text

from nas_kd.searcher.lease_table import connected

BUDGET = ("--search.max_macs", "30%", "--search.trials", "60")


def pids(url: str) -> set[int]:
    """Return the processes that have a lease in a database."""
    engine = connected(url)
    with engine.begin() as connection:
        found = set(connection.execute(text("SELECT pid FROM nas_kd_lease")).scalars())
    engine.dispose()
    return found


@pytest.mark.timeout(600)
def test_a_helper_joins_a_search_and_is_killed(made: Made, copied: Path, tmp_path: Path, fork: Forks) -> None:
    with started(fork, tmp_path, "first.log", "search", made.config, "--run", copied, *BUDGET) as first:
        until(lambda: bool(list(copied.glob("search/macs_*/trials.csv"))))
        os.kill(first.pid, signal.SIGSTOP)  # so that the search is still going when the helper has come
        (search,) = copied.glob("search/macs_*")
        with started(
            fork, tmp_path, "helper.log", "search", made.config, "--run", copied, *BUDGET, "--worker"
        ) as helper:
            until(lambda: helper.pid in leases(search))
            os.kill(first.pid, signal.SIGCONT)
            until(lambda: "trial" in leases(search).get(helper.pid, ""))
            lost = leases(search)[helper.pid]
            helper.kill()
        assert first.wait(LIMIT) == 0, (tmp_path / "first.log").read_text()
    trials = pd.read_csv(search / "trials.csv", dtype={"key": str})
    assert trials["number"].tolist() == list(range(len(trials)))
    scored = trials[trials["kind"].isin(["warm", "trial", "random"])]
    assert len(scored) == 60 and scored["key"].is_unique and scored["kl"].notna().all()
    assert trials.set_index("number").loc[int(lost.split()[1]), "kl"] >= 0  # done again, or just done
    best = json.loads((search / "best.json").read_text())
    assert best["budget"]["macs"] == int(0.3 * 747136) and best["macs"] <= best["budget"]["macs"]  # of the teacher's
    log = (copied / "log.txt").read_text()
    assert f"process {helper.pid} of" in log and not leases(search)


def test_a_helper_of_nothing_is_told_so(made: Made, copied: Path, nas_kd_main: Callable[..., Said]) -> None:
    for arguments, message in (
        ((copied, "--worker"), "a running search; this one has finished"),
        ((copied, "--worker", *BUDGET), "a run whose search has started"),
        ((copied, "--worker", "--search.storage", "sqlite:///file.db"), "postgresql://USER@HOST/DATABASE"),
    ):
        said = nas_kd_main("search", *arguments)
        assert said.code == 2 and message in said.err, said.err
    said = nas_kd_main("rank", copied, "--worker")
    assert said.code == 2 and "a run whose ranking was started" in said.err
    assert not (copied / "rank").exists() and not list(copied.glob("search/macs_*"))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(programs() is None, reason="PostgreSQL or its driver psycopg is not installed")
def test_helpers_of_another_folder_meet_in_a_database(made: Made, copied: Path, tmp_path: Path, fork: Forks) -> None:
    other = tmp_path / "another host"
    shutil.copytree(copied, other)
    with postgres() as url:
        given = (made.config, *BUDGET, "--search.storage", url)
        with started(fork, tmp_path, "first.log", "search", *given, "--run", copied) as first:
            until(lambda: bool(list(copied.glob("search/macs_*/trials.csv"))))
            os.kill(first.pid, signal.SIGSTOP)
            wrong = [sys.executable, "-m", "nas_kd", "search", *map(str, given), "--run", str(other), "--worker"]
            said = subprocess.run([*wrong, "--seed", "5"], capture_output=True, text=True, env=environment())
            assert said.returncode == 2
            with started(fork, tmp_path, "helper.log", "search", *given, "--run", other, "--worker") as helper:
                until(lambda: helper.pid in pids(url))  # not more: the first may hold the lock where it was stopped
                os.kill(first.pid, signal.SIGCONT)
                assert helper.wait(LIMIT) == 0, (tmp_path / "helper.log").read_text()
            assert first.wait(LIMIT) == 0, (tmp_path / "first.log").read_text()
        (search,) = copied.glob("search/macs_*")
        trials = pd.read_csv(search / "trials.csv", dtype={"key": str})
        scored = trials[trials["kind"].isin(["warm", "trial", "random"])]
        assert len(scored) == 60 and scored["key"].is_unique
        assert not list(other.glob("search/macs_*"))
