"""Killed anywhere and started again by the same command, a run ends with the numbers of an unbroken one.

The slow test writes a row for every kill into the file that NAS_KD_KILLS names.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from small_run import Made, changes, digests, environment, numbers

from nas_kd.runs.files import CsvLog

sys.path.insert(0, str(Path(__file__).parent))
from beside import rank_options  # noqa: E402
from faults import cpu_seconds  # noqa: E402

Fork = Callable[..., tuple[int, str]]
Fault = dict[str, Any]
KILLS = 11  # of a chain
DONE = ("teacher", "supernet", "blockwise", "search")
INJECT = Path(__file__).parent / "inject"
RANK = rank_options("supernet_accuracy", "macs", "params")


def at(path: str, nth: int, what: str = "kill") -> dict[str, Any]:
    """Die at the nth write of such a path."""
    return {"fault": {"path": path, "nth": nth, "what": what}}


def soon(draw: random.Random, most: float) -> dict[str, Any]:
    """Die when a seeded clock says so."""
    return {"after": draw.uniform(0.3, most)}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("count", [6, pytest.param(12, marks=pytest.mark.slow)])
def test_kills_change_no_number(made: Made, tmp_path: Path, fork: Fork, count: int) -> None:
    run, draw = tmp_path / "run", random.Random(0)
    # a kill, and what proves that it came where it was meant to
    plan: list[tuple[dict[str, Any], str]] = [
        (at(r"teacher/last\.pt$", 2), "teacher/previous.pt"),  # between two files: a row, but no checkpoint
        (at(r"run/", draw.randrange(8, 24)), ""),
        (at(r"supernet/\.last\.pt", 1, "half"), "supernet/.last.pt*"),  # inside a checkpoint
        (at(r"run/", draw.randrange(8, 24), "half"), ""),
        (at(r"blockwise/half_3\.csv$", 1), "blockwise/half_2.csv"),
        (at(r"blockwise/stage_2\.csv$", 1), "blockwise/stage_1.csv"),
        (at(r"search/trials\.csv$", 12, "half"), "search/trials.csv"),  # inside a row
        (at(r"search/short/\w+/student$", 3), "search/short/*/student"),
        (soon(draw, 1.2), ""),
        (at(r"retrain/\w+/seed_\d/\.last\.pt", 4, "half"), "retrain/*/seed_*/.last.pt*"),
        (soon(draw, 1.2), ""),
        (at(r"report/report\.html$", 1), "retrain/results.csv"),
    ]
    ended: set[str] = set()
    few = [plan[at] for at in (0, 2, 4, 6, 9, 11)]
    for number, (how, proof) in enumerate(plan if count == len(plan) else few):
        code, text = fork("run", made.config, "--run", run, **how)
        assert code == -9, (number, text)
        assert not proof or list(run.glob(proof)), number
        for stage in ended:  # what had ended before is not done again
            assert f"{stage} 0/" not in text, number
        ended |= {s for s in DONE if _done(run / s)}
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
    students = pd.read_csv(whole / "retrain/results.csv", dtype={"key": str})["key"].nunique()
    assert sum(name.endswith("metrics.csv") for name in ours) == 3 + 2 + 5 + 2 * students
    left = {str(path.relative_to(killed)) for path in killed.rglob(".*") if not path.name.startswith(".lock")}
    assert left == set()
    drawn = [json.loads((run / "search/best.json").read_text())["arch"] for run in (whole, killed)]
    assert drawn[0] == drawn[1]
    assert {n for n in digests(whole) if n.startswith("report/")} == {
        n for n in digests(killed) if n.startswith("report/")
    }
    return True


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_second_budget_reuses_all_but_the_search(made: Made, copied: Path, fork: Fork) -> None:
    """And a kill in the middle of it changes nothing that was finished."""
    options = ("run", made.config, "--search.max_macs", "124358")
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
    assert any(line.startswith("│ found") for line in text.splitlines()) and best["key"] in text
    page = (copied / "report/report.html").read_text()
    assert best["key"] in page and str(first["key"].iloc[0]) in page
    assert pd.read_csv(copied / "report/budgets.csv")["search"].tolist() == ["search", "search/macs_124358"]
    code, text = fork("run", made.config, "--run", copied)  # back to the first: both results stay
    assert code == 0 and changes(after, numbers(copied)) == [], text


class Chain:
    """Commands on one run folder, each killed at a moment that a seed gives.

    Args:
        config: the configuration.
        run: the run folder.
        seed: the seed.
        fork: starts a command in a fork of a process with everything imported; None starts a new interpreter.
    """

    def __init__(self, config: Path, run: Path, seed: int, fork: Fork | None) -> None:
        self.config, self.run, self.seed, self.fork = config, run, seed, fork
        self.draw, self.kills = random.Random(seed), 0

    def start(self, command: str, *options: str, fault: Fault | None = None, after: float | None = None) -> int:
        """Run a command in a process of its own; return its exit code, -9 when it was killed."""
        if self.fork is not None:
            code, text = self.fork(command, self.config, "--run", self.run, *options, fault=fault, after=after)
        else:
            code, text = self._interpret(command, options, fault, after)
        assert code in (0, -9), text[-3000:]
        if code == -9:
            self.kills += 1
            self._record(command, "clock" if fault is None else fault["what"])
        return code

    def _interpret(
        self, command: str, options: tuple[str, ...], fault: Fault | None, after: float | None
    ) -> tuple[int, str]:
        argv = [sys.executable, "-m", "nas_kd", command, str(self.config), "--run", str(self.run), *options]
        env = environment()
        if fault is not None:
            env |= {"NAS_KD_TEST_FAULT": json.dumps(fault), "PYTHONPATH": f"{INJECT}:{env['PYTHONPATH']}"}
        known, said = self._said(), self.run.parent / f"said_{self.seed}.txt"
        with open(said, "a") as file:
            process = subprocess.Popen(argv, env=env, cwd=self.run.parent, stdout=file, stderr=file)
        if after is not None:
            while process.poll() is None and self._said() <= known:
                time.sleep(0.02)  # until it has begun to work: what a start takes depends on the machine
            end = after + (cpu_seconds(process.pid) if process.poll() is None else 0.0)
            while process.poll() is None and cpu_seconds(process.pid) < end:
                time.sleep(0.002)
            process.kill()
        return process.wait(), said.read_text()

    def kill(self, command: str, *options: str, path: str = r"run/", most: int = 150, seconds: float = 2.2) -> int:
        """Kill a command at a random write, in the middle of one, or at a random time."""
        how = self.draw.choice(("clock", "clock", "kill", "half"))
        if how == "clock":
            return self.start(command, *options, after=self.draw.uniform(0.1, seconds) + (0.4 if self.fork else 0.0))
        return self.start(command, *options, fault={"path": path, "nth": self.draw.randrange(1, most), "what": how})

    def report(self) -> int:
        """Kill a run at a random write of its report."""
        what = self.draw.choice(("kill", "half"))
        return self.start("run", fault={"path": r"run/report/", "nth": self.draw.randrange(1, 26), "what": what})

    def _said(self) -> int:
        log = self.run / "log.txt"
        return log.stat().st_size if log.exists() else 0

    def _record(self, command: str, how: str) -> None:
        if "NAS_KD_KILLS" in os.environ:
            row = {"chain": self.seed, "command": command, "how": how, "stage": _stage(self.run, command)}
            CsvLog(os.environ["NAS_KD_KILLS"]).append(row)


def _stage(run: Path, command: str) -> str:
    """Say in which stage a command was killed, from what it left."""
    if command == "rank":
        return "rank"
    for name in DONE:
        if not _done(run / name):
            return name
    files = list((run / "retrain").glob("*/seed_*/stage.json"))
    ended = (run / "retrain/teacher.json").exists() and len(files) >= 8 and all(_done(file.parent) for file in files)
    return "report" if ended else "retrain"


@pytest.fixture(scope="session")
def ranked(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run, ranked in one go."""
    run = tmp_path_factory.mktemp("ranked") / "run"
    subprocess.run(["cp", "-r", str(made.run), str(run)], check=True)
    assert Chain(made.config, run, -1, None).start("rank", *RANK) == 0
    return run


def _ranking(run: Path) -> dict[str, Any]:
    """Read the tables of a ranking without their times."""
    frames = {}
    for name in ("archs", "truth", "scores", "noise", "summary"):
        frame = pd.read_csv(run / "rank" / f"{name}.csv", dtype=str)
        frames[name] = frame[[c for c in frame.columns if "seconds" not in c and "minutes" not in c]].to_csv()
    return frames


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("seed", range(10))
def test_chains_of_kills_at_random_moments(made: Made, ranked: Path, tmp_path: Path, fork: Fork, seed: int) -> None:
    chain = Chain(made.config, tmp_path / "run", seed, fork if seed else None)
    for number in range(7):  # ever later, so that some chains are killed in the first stages, all in the last
        if chain.kill("run", most=40 + 60 * number, seconds=0.5 + 0.8 * number) == 0:
            break
    chain.report()
    while chain.kills < KILLS:
        if chain.kill("rank", *RANK, path=r"run/rank/", most=45) == 0:
            break
    while chain.kills < KILLS:  # the report is written anew by every command
        chain.report()
    assert chain.start("run") == 0 and chain.start("rank", *RANK) == 0
    assert chain.kills == KILLS
    killed = tmp_path / "run"
    assert _ranking(killed) == _ranking(ranked)
    subprocess.run(["rm", "-r", str(killed / "rank")], check=True)
    assert _same(made.run, killed)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_kills_with_workers(made: Made, tmp_path: Path) -> None:
    """Workers end with their parent, and the others take their trainings up."""
    chain = Chain(made.config, tmp_path / "run", 100, None)
    for number in range(80):
        # ever longer, so that in the end even the slowest machine gets from one checkpoint to the next
        after = chain.draw.uniform(0.5, 3) * (1 + number / 4)
        if chain.start("run", "--workers", "2", after=after) == 0:
            break
        time.sleep(1.0)  # workers see that their parent is gone
    assert chain.kills >= 2
    assert _same(made.run, tmp_path / "run")


VIT = """\
space: vit_cifar
device: cpu
threads: 1
workers: 1
data: {train: digits, subset: 48, resolution: 32, rate: 0.2, select: 0.2, views: 1}
teacher: {model: cifar_resnet8, epochs: 1, batch_size: 16, lr: 0.1}
supernet: {epochs: 2, batch_size: 16, random_subnets: 1}
search: {max_macs: 400000000, engine: nsga2, trials: 4, top: 1, epochs: 1, calibration_images: 8, rate_images: 8}
retrain: {epochs: 1, batch_size: 16, seeds: 1, random_students: 0, band: 0.3}
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_kills_of_a_run_of_transformers(tmp_path: Path, fork: Fork) -> None:
    """Attention, relative positions and layer norms come back from their checkpoints too."""
    config = tmp_path / "vit.yaml"
    config.write_text(VIT)
    code, text = fork("run", config, "--run", tmp_path / "whole")
    assert code == 0, text
    run = tmp_path / "killed"
    for how in (
        at(r"supernet/\.last\.pt", 1, "half"),
        at(r"supernet/metrics\.csv$", 2),
        at(r"search/trials\.csv$", 3, "half"),
        at(r"search/short/\w+/student$", 2),
        at(r"retrain/\w+/seed_\d/\.last\.pt", 1, "half"),
        at(r"report/report\.html$", 1),
    ):
        code, text = fork("run", config, "--run", run, **how)
        assert code == -9, (how, text)
    code, text = fork("run", config, "--run", run)
    assert code == 0, text
    assert changes(numbers(tmp_path / "whole"), numbers(run)) == []
