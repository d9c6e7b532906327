"""The option --worker of a ranking that is going: who is killed in a training loses nothing, and none is done twice."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from beside import LIMIT, RANK, leases, started, until
from forks import Forks
from small_run import Made

from nas_kd.runs.status import status

STEP = "nas_kd.train.loop.seeded"  # called once a step


def at_step(what: str, nth: int, **more: Any) -> dict[str, Any]:
    """Be hit at the nth step of the trainings that a process does for the truth; an epoch has five."""
    return {"what": what, "call": STEP, "path": "^truth$", "nth": nth, **more}


@pytest.fixture(scope="module")
def ranked(made: Made, tmp_path_factory: pytest.TempPathFactory, fork: Forks) -> Path:
    """The same ranking by one process that nobody disturbs."""
    run = Path(shutil.copytree(made.run, tmp_path_factory.mktemp("ranked") / "run"))
    code, text = fork("rank", made.config, "--run", run, *RANK)
    assert code == 0, text
    return run / "rank"


def checked(rank: Path, ranked: Path) -> None:
    """Compare a ranking with an undisturbed one, and count its trainings."""
    tables = []
    for folder in (ranked, rank):
        truth = pd.read_csv(folder / "truth.csv", dtype={"key": str}).sort_values(["seed", "key"])
        assert (truth[["seconds", "cpu_seconds"]] > 0).all(axis=None)
        tables.append(truth.drop(columns=["seconds", "cpu_seconds"]).to_csv(index=False))
    assert tables[0] == tables[1] and tables[0].count("\n") == 1 + 8
    assert (rank / "noise.csv").read_bytes() == (ranked / "noise.csv").read_bytes()
    said = re.findall(r"truth \d+/8: (\w+ seed 0),", (rank.parent / "log.txt").read_text())
    assert len(said) == 8 and set(Counter(said).values()) == {1}  # each was trained to its end once
    assert not (rank / "trainings").exists() and not leases(rank)
    assert not [path for path in rank.rglob(".*")]


@pytest.mark.timeout(900)  # three starts of a command, on a machine that may do other things
def test_a_helper_is_killed_in_a_training(made: Made, copied: Path, ranked: Path, tmp_path: Path, fork: Forks) -> None:
    rank, go = copied / "rank", tmp_path / "go"
    wait = at_step("wait", 3, until=str(go))  # so that the ranking is still going when the helper has come
    with started(fork, tmp_path, "first.log", "rank", made.config, "--run", copied, *RANK, fault=wait) as first:
        until(lambda: bool(leases(rank).get(first.pid)) or first.poll() is not None)
        kill = at_step("kill", 18)  # in the second epoch of its second training
        with started(fork, tmp_path, "helper.log", "rank", copied, "--worker", fault=kill) as helper:
            assert helper.wait(LIMIT) == -9, (tmp_path / "helper.log").read_text()
            lost = leases(rank)[helper.pid].replace(" ", "_")
        assert list((rank / "trainings").glob(f"{lost}.*/last.pt"))
        told = {pid: line for line in status(copied).splitlines() for pid in leases(rank) if f"process {pid} " in line}
        assert "lost (its process has ended):" in told[helper.pid] and "epoch=1" in told[helper.pid]
        assert "lost" not in told[first.pid] and leases(rank)[first.pid] in told[first.pid]
        assert len(pd.read_csv(rank / "truth.csv")) == 1
        go.touch()
        assert first.wait(LIMIT) == 0, (tmp_path / "first.log").read_text()
    checked(rank, ranked)
    log = (copied / "log.txt").read_text()
    assert f"process {helper.pid} of" in log and "is lost" in log
    said = (tmp_path / "first.log").read_text()  # the first went on from the helper's last epoch
    assert f"rank {lost} 1/2 epochs" in said and f"rank {lost} 0/2 epochs" not in said


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_first_is_killed_and_a_helper_is_stopped(
    made: Made, copied: Path, ranked: Path, tmp_path: Path, fork: Forks
) -> None:
    """One helper ends the trainings of all others; the first command, given again, has nothing left but to judge."""
    rank, go = copied / "rank", tmp_path / "go"
    command = ("rank", made.config, "--run", copied, *RANK)
    with started(fork, tmp_path, "first.log", *command, fault=at_step("kill", 18)) as first:
        until(lambda: bool(leases(rank).get(first.pid)) or first.poll() is not None)
        wait = at_step("wait", 1, until=str(go))
        with started(fork, tmp_path, "last.log", "rank", copied, "--worker", fault=wait) as last:
            assert first.wait(LIMIT) == -9
            stop = at_step("term", 8)
            with started(fork, tmp_path, "stopped.log", "rank", copied, "--worker", fault=stop) as stopped:
                assert stopped.wait(LIMIT) == 143
            until(lambda: bool(leases(rank).get(last.pid)))
            go.touch()
            assert last.wait(LIMIT) == 0, (tmp_path / "last.log").read_text()
    said = (tmp_path / "stopped.log").read_text()
    # epoch 1 where it had ended the lost training first, of which an epoch was left
    assert re.search("saved in epoch [12] after step 3 of 5", said) and "Traceback" not in said
    assert not (rank / "summary.csv").exists()  # judging is not a helper's
    with started(fork, tmp_path, "again.log", *command) as again:
        assert again.wait(LIMIT) == 0, (tmp_path / "again.log").read_text()
    assert not re.search(r"rank \w+_seed_0 \d/2", (tmp_path / "again.log").read_text())
    checked(rank, ranked)
