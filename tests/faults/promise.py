"""Four workers on one study, one of them killed: how it is done, and what is promised of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import refine_worker
from refine_worker import calls, until

import nas_kd

ROOT = Path(nas_kd.__file__).parents[1]
WORKERS = ("first", "b", "c", "d")


def start(folder: Path, who: str, url: str = "", together: int = 4, hangs: int = 0) -> subprocess.Popen[bytes]:
    command = [sys.executable, refine_worker.__file__, str(folder), url, who, str(together), str(hangs)]
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})


def begun(folder: Path, who: str, number: int, processes: Mapping[str, subprocess.Popen[bytes]]) -> list[int]:
    """Wait until a worker has begun an evaluation; gives the point."""

    def mine() -> list[list[int]]:
        assert all(process.poll() in (None, 0) for process in processes.values())
        lines = calls(folder)
        return [line["point"] for line in lines if line["worker"] == who and line["what"] == "begin"]

    until(lambda: len(mine()) >= number)
    return mine()[number - 1]


def kill_one_of_four(folder: Path, url: str = "", killed: str = "c") -> list[dict]:
    """Search with four workers, kill one in the middle of an evaluation, and check the promise; gives the rows."""
    processes = {"first": start(folder, "first", url, hangs=2 * (killed == "first"))}
    begun(folder, "first", 1, processes)  # the others join a search that is going
    processes |= {who: start(folder, who, url, hangs=2 * (killed == who)) for who in WORKERS[1:]}
    point = begun(folder, killed, 2, processes)
    processes[killed].kill()
    rest = [who for who in WORKERS if who != killed]
    assert [processes[who].wait(refine_worker.LIMIT) for who in rest] == [0, 0, 0]
    processes[killed].wait()

    rows = json.loads((folder / f"{rest[0]}.json").read_text())
    assert all(json.loads((folder / f"{who}.json").read_text()) == rows for who in rest)  # one study for all
    assert [row["number"] for row in rows] == list(range(len(rows)))
    evaluated = [row for row in rows if row["kind"] in ("warm", "trial", "random")]
    points = [tuple(row[f"i_{i}"] for i in (1, 2, 3)) for row in evaluated]
    assert len(points) == len(set(points)) == refine_worker.TRIALS  # no trial lost
    assert all(row["kl"] == refine_worker.kl(at) for row, at in zip(evaluated, points, strict=True))
    ended = Counter(tuple(call["point"]) for call in calls(folder) if call["what"] == "end")
    assert ended == Counter(points)  # none done twice
    again = [call for call in calls(folder) if call["point"] == point]
    assert [call["what"] for call in again] == ["begin", "begin", "end"]  # the killed one's is done again
    assert again[0]["worker"] == killed != again[1]["worker"] == again[2]["worker"]
    shares = Counter(call["worker"] for call in calls(folder) if call["what"] == "end")
    assert set(shares) == set(WORKERS)
    if killed != "first":
        assert refine_worker.kept_rows(folder) == rows  # what a run keeps in trials.csv
    return rows
