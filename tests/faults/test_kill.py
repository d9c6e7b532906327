"""Killed in every stage and started again by the same command, a run ends with the numbers of an unbroken one."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from small_run import Made, changes, digests, environment, numbers

Fork = Callable[..., tuple[int, str]]

# (name, path that is being written, which time, how, what proves that this stage was in its middle)
KILLS: list[tuple[str, str, int, str, str]] = [
    ("teacher, a row without its checkpoint", r"teacher/last\.pt$", 2, "kill", "teacher/last.pt"),
    ("supernet, half a row", r"supernet/metrics\.csv$", 2, "half", "supernet/last.pt"),
    ("blockwise, half-time rating", r"blockwise/half_3\.csv$", 1, "kill", "blockwise/half_2.csv"),
    ("blockwise, training", r"blockwise/last\.pt$", 2, "kill", "blockwise/last.pt"),
    ("blockwise, rating", r"blockwise/stage_2\.csv$", 1, "kill", "blockwise/stage_1.csv"),
    ("search, half a trial", r"search/trials\.csv$", 27, "half", "search/trials.csv"),
    ("search, controls", r"search/trials\.csv$", 8, "kill", "search/trials.csv"),
    ("short training, student not saved", r"search/short/\w+/student$", 3, "kill", "search/short/*/student"),
    ("teacher cache, answers not booked", r"cache/\w+/cache\.json$", 1, "kill", "teacher/cache/*/views.npy"),
    ("retrain, checkpoint", r"retrain/\w+/seed_\d/last\.pt$", 4, "kill", "retrain/*/seed_0/student"),
    ("retrain, stage not booked", r"retrain/\w+/seed_1/stage\.json$", 4, "kill", "retrain/*/seed_1/student"),
    ("results", r"retrain/results\.csv$", 1, "kill", "retrain/*/seed_1/student"),
]
DONE = ("teacher", "supernet", "blockwise", "search")


def test_a_kill_in_every_stage_changes_no_number(made: Made, tmp_path: Path, fork: Fork) -> None:
    run = tmp_path / "run"
    ended: set[str] = set()
    for name, path, nth, what, proof in KILLS:
        code, text = fork("run", made.config, "--run", run, fault={"path": path, "nth": nth, "what": what})
        assert code == -9, (name, text)
        assert list(run.glob(proof)), name
        stage = name.split(",")[0].split()[0]
        if stage in DONE and "cache" not in name:
            assert not json.loads((run / stage / "stage.json").read_text())["done"], name
        for stage in ended:  # what had ended before is not done again
            assert f"{stage} 0/" not in text, name
        ended |= {s for s in DONE if (run / s).exists() and _done(run / s)}
    assert ended == set(DONE)
    code, text = fork("run", made.config, "--run", run)
    assert code == 0, text
    assert _same(made.run, run)


def _done(folder: Path) -> bool:
    file = folder / "stage.json"
    return file.exists() and json.loads(file.read_text())["done"]


def _same(whole: Path, killed: Path) -> bool:
    """Compare a killed run with an unbroken one, down to the bytes of all results, and its list of files."""
    ours, theirs = numbers(whole), numbers(killed)
    assert changes(ours, theirs) == []
    for name in ("best.json", "trials.csv", "top.csv", "front.csv"):
        assert f"search/{name}" in ours
    assert sum(name.endswith("metrics.csv") for name in ours) == 3 + 5 + 8
    left = {str(path.relative_to(killed)) for path in killed.rglob(".*") if not path.name.startswith(".lock")}
    assert left == set()
    drawn = [json.loads((run / "search/best.json").read_text())["arch"] for run in (whole, killed)]
    assert drawn[0] == drawn[1]
    assert {n for n in digests(whole) if n.startswith("report/")} == {
        n for n in digests(killed) if n.startswith("report/")
    }
    return True


def test_a_second_budget_reuses_all_but_the_search(made: Made, copied: Path, fork: Fork) -> None:
    """And a kill in the middle of it changes nothing that was finished."""
    options = ("run", made.config, "--search.max_macs", "30%")
    fault = {"path": r"search/macs_\d+/trials\.csv$", "nth": 20, "what": "half"}
    before, first = numbers(copied), pd.read_csv(copied / "retrain/results.csv", dtype={"key": str})
    code, text = fork(*options, "--run", copied, fault=fault)
    assert code == -9, text
    assert changes(before, numbers(copied)) == [
        f"search/macs_124358/{name}" for name in ("front.csv", "stage.json", "trials.csv")
    ]
    code, text = fork("run", made.config, "--run", copied)  # the first budget is untouched by it
    assert code == 0, text
    assert all(numbers(copied)[name] == value for name, value in before.items())
    code, text = fork(*options, "--run", copied)
    assert code == 0, text
    for stage in ("teacher", "supernet", "blockwise"):
        assert f"{stage} 0/" not in text
    after = numbers(copied)
    assert [name for name in before if before[name] != after[name]] == ["retrain/results.csv"]
    trials = pd.read_csv(copied / "search/macs_124358/trials.csv")
    assert trials["kind"].isin(["warm", "trial", "random"]).sum() == 30
    assert trials["number"].tolist() == list(range(len(trials)))
    best = json.loads((copied / "search/macs_124358/best.json").read_text())
    assert best["budget"] == {"macs": 124358} and best["macs"] <= 124358
    results = pd.read_csv(copied / "retrain/results.csv", dtype={"key": str})
    kept = results[results["search"] == "search"].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, first)
    mine = results[results["search"] == "search/macs_124358"]
    assert set(mine["role"]) == set(first["role"]) and (mine["macs"] <= 124358).all()
    assert any("│ found" in line and best["key"] in line for line in text.splitlines())
    page = (copied / "report/report.html").read_text()
    assert best["key"] in page and str(first["key"].iloc[0]) in page
    assert pd.read_csv(copied / "report/budgets.csv")["search"].tolist() == ["search", "search/macs_124358"]
    code, text = fork("run", made.config, "--run", copied)  # back to the first: both results stay
    assert code == 0 and changes(after, numbers(copied)) == [], text


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("workers", [1, 2])
def test_kills_by_the_clock(made: Made, tmp_path: Path, workers: int) -> None:
    """A process of its own, killed whenever a seeded clock says so, with its workers."""
    run, draw = tmp_path / "run", random.Random(workers)
    command = [
        sys.executable, "-m", "nas_kd", "run", str(made.config), "--run", str(run), "--workers", str(workers)
    ]  # fmt: skip
    kills, log = 0, run / "log.txt"
    while True:
        known = log.stat().st_size if log.exists() else 0
        process = subprocess.Popen(command, env=environment(), cwd=tmp_path, stderr=subprocess.DEVNULL)
        while process.poll() is None and (log.stat().st_size if log.exists() else 0) <= known:
            time.sleep(0.05)  # until it has begun to work: what a start takes depends on the machine
        try:
            # ever longer, so that in the end even the slowest machine gets from one checkpoint to the next
            code = process.wait(timeout=draw.uniform(0.5, 3) * (1 + kills / 4))
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            time.sleep(1.0)  # workers see that their parent is gone
        kills += 1
        assert kills < 80
    assert code == 0 and kills >= 2
    assert _same(made.run, run)
