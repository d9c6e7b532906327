"""The command status: stages, the ranking, and the workers with what each has in hand."""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from nas_kd.cli import main
from nas_kd.runs.leases import FileLeases, Lease
from nas_kd.runs.run import Run
from nas_kd.runs.status import status


def lines(run: Run, first: str) -> list[str]:
    return [line for line in status(run.path).splitlines() if line.startswith(first)]


def test_workers_are_told_with_what_they_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path / "a run")
    run.stage("search", {})
    assert not lines(run, "search  worker") and "worker" not in status(run.path)
    mine = replace(Lease.own(), worker="mine", job="trial 17")
    FileLeases(run.path / "search" / "leases").put(mine)
    idle = replace(mine, worker="idle", job="", place="another machine", host="far")
    FileLeases(run.path / "search" / "macs_5" / "leases").put(idle)
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    assert main(["status", str(run.path)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-2].split() == f"search worker mine process {os.getpid()} of {mine.host} trial 17".split()
    assert said[-1].split() == f"search/macs_5 worker idle process {idle.pid} of far idle".split()
    assert said[-2].index("process") == said[-1].index("process")
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before


def test_lost_workers_are_marked(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    store = FileLeases(run.path / "search" / "leases")
    ended = subprocess.Popen(["true"])
    ended.wait()
    own = Lease.own()
    store.put(replace(own, worker="dead", pid=ended.pid, started="1", job="trial 1"))
    far = replace(own, place="another machine", job="trial 2")
    store.put(replace(far, worker="silent"))
    store.put(replace(far, worker="well"))
    old = time.time() - 100
    os.utime(store.folder / "silent.json", (old, old))
    (store.folder / "torn.json").write_text(json.dumps({"worker": "torn"})[:9])
    dead, silent, well = lines(run, "search")
    assert dead.endswith("lost (its process has ended):  trial 1")
    assert "lost (silent for 1 min 4" in silent and silent.endswith("):  trial 2")
    assert "lost" not in well and well.endswith("trial 2")


def test_a_ranking_and_its_trainings(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    rank = run.path / "rank"
    FileLeases(rank / "leases").put(replace(Lease.own(), worker="mine", job="ab12 seed 1"))
    (rank / "archs.csv").write_text("key\nab12\ncd34\n")
    (rank / "truth.csv").write_text("key,seed\nab12,0\ncd34,0\nab")
    for name, loss in (("ab12_seed_1.mine", 0.5), ("ab12_seed_11.other", 0.7)):
        folder = rank / "trainings" / name
        folder.mkdir(parents=True)
        (folder / "stage.json").write_text("{")  # another process writes it, or deletes it
        (folder / "metrics.csv").write_text(f"epoch,loss\n1,{loss}\n2,{loss}\n3,0")
    done, worker = lines(run, "rank")
    assert done.split() == ["rank", "begun", "trainings=2", "archs=2"]
    assert worker.endswith("ab12 seed 1  epoch=2  loss=0.5")
    assert (rank / "truth.csv").read_text().endswith("\nab")  # who writes it may be in the middle of a row
    (rank / "summary.csv").touch()
    assert lines(run, "rank")[0].split()[1] == "done"
