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
from nas_kd.runs.progress import Progress
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


def first(run: Run) -> str:
    return status(run.path).splitlines()[0]


def ended() -> Lease:
    process = subprocess.Popen(["true"])
    process.wait()
    return replace(Lease.own(), pid=process.pid, started="1")


def test_running_finished_and_stopped_are_said_by_the_command(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    assert first(run) == "stopped; the same command goes on"
    with run.locked(), run.working("search"):
        assert first(run) == f"running (process {os.getpid()} of {Lease.own().host})"
        with Progress("search", 4, run=run, every=0.0) as progress:
            progress.advance(2, kl=0.5)
            progress.advance(2, kl=0.25)
        assert "running (process " in first(run) and ": search 4/4 epochs: kl=0.25, 0 s ago" in first(run)
        assert json.loads((run.path / "status.json").read_text())["state"] == "running"
    assert first(run) == "finished (nas-kd search), 0 s ago"
    with pytest.raises(KeyboardInterrupt), run.locked(), run.working("retrain"):
        with Progress("retrain", 4, run=run, every=0.0) as progress:
            progress.advance()
            raise KeyboardInterrupt
    assert first(run) == "stopped (nas-kd retrain) in retrain 1/4 epochs, 0 s ago; the same command goes on"


def test_a_command_that_refuses_leaves_what_a_run_was(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    with run.working("run"):
        pass
    again = Run(tmp_path / "run")
    with pytest.raises(ValueError, match="other data"), again.locked(), again.working("run"):
        raise ValueError("other data")
    assert first(run).startswith("finished (nas-kd run)")


def test_a_killed_command_is_lost_until_another_one_works(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    with run.working("run"), Progress("search", 4, run=run, every=0.0):
        dead = ended()
        note = run.path / ".lock.all"
        note.write_text(json.dumps(dead.__dict__))
        assert first(run).startswith(f"lost: its process (process {dead.pid} of {dead.host}) has ended without a word")
        note.write_text(json.dumps(replace(dead, place="another machine").__dict__))
        assert first(run).startswith("running")
        os.utime(note, (time.time() - 100,) * 2)
        assert first(run).startswith("lost")
        note.write_text("")
        assert first(run).startswith("running")
    file = run.path / "status.json"
    state = json.loads(file.read_text()) | {"state": "running"}
    file.write_text(json.dumps(state | {"process": state["process"] | {"pid": dead.pid, "started": "1"}}))
    assert first(run).startswith("lost")
    file.write_text(json.dumps({name: state[name] for name in ("stage", "done", "total", "unit", "last", "state")}))
    assert first(run).startswith("lost: its process has ended")  # written by an earlier version, in the middle
    file.write_text(json.dumps(state | {"process": None, "done": 4}))
    assert first(run).startswith("lost")
    run.stage("search", {}).finish({})
    assert first(run).startswith("finished")


def test_a_training_in_python_says_when_it_is_finished(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    with Progress("retrain", 1, run=run, every=0.0) as progress:
        assert first(run).startswith(f"running (process {os.getpid()} ")
        progress.advance()
    assert json.loads((run.path / "status.json").read_text())["state"] == "finished"
    assert first(run) == "finished, 0 s ago"


def test_many_stages_and_workers_are_less_than_20_lines_of_80_columns(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    names = ["teacher", "supernet", *(f"blockwise/stage_{n}" for n in range(20))]
    names += [f"search/{budget}short/{key}" for budget in ("", "macs_5/") for key in "abcdef"]
    names += [f"retrain/{key}/kd/seed_{seed}" for key in "abcdef" for seed in range(3)]
    for name in names:
        stage = run.stage(name, {})
        (stage.folder / "metrics.csv").write_text(
            "epoch,lr,ce,kd,loss,rate_accuracy\n1,0.1234,1.234,2.345,3.456,0.5678\n"
        )
        if not name.endswith("seed_2"):
            stage.finish({})
    for number in range(9):
        far = replace(Lease.own(), worker=f"w{number}", place="another machine")
        FileLeases(run.path / "search" / "leases").put(far)
    said = status(run.path).splitlines()
    assert len(said) < 20
    assert all(len(line) <= 80 for line in said if "worker" not in line) and said[-1] == "and 5 more workers"
    (retrain,) = [line for line in said if line.startswith("retrain")]
    _, done, *values = [cell for cell in retrain.split("  ") if cell]
    assert (done, values[:3]) == ("12 of 18 done", ["epoch=1", "rate_accuracy=0.5678", "loss=3.456"])
