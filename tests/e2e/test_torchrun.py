"""Commands below torchrun: two processes train one supernet and write one run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from small_run import CONFIG, digests, environment

from nas_kd.cli import main
from nas_kd.pipeline.pipeline import Pipeline
from nas_kd.runtime.device import Runtime

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
COMMAND = ["-m", "--", "nas_kd"]  # without the dashes torchrun takes --run for the beginning of its own --run-path
# the teacher's odd batch is no matter: the first process trains it alone
CHANGED = {"batch_size: 32}\nsupernet: {": "batch_size: 33}\nsupernet: {teacher_weight: 0.5, "}


def torchrun(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    given = [*TORCHRUN, *COMMAND, *map(str, arguments)]
    return subprocess.run(given, capture_output=True, text=True, timeout=1000, cwd=folder, env=environment())


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = CONFIG
    for old, new in CHANGED.items():
        assert old in text
        text = text.replace(old, new)
    path = tmp_path_factory.mktemp("torchrun") / "config.yaml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def made(config: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    run = config.parent / "run"
    done = torchrun(config.parent, "supernet", config, "--run", run)
    assert done.returncode == 0, done.stderr[-4000:]
    return run, done


def test_two_processes_leave_one_run(made: tuple[Path, Any]) -> None:
    run, done = made
    stage = json.loads((run / "supernet/stage.json").read_text())
    assert stage["done"] and stage["facts"]["epochs"] == 2
    assert list(pd.read_csv(run / "supernet/metrics.csv")["epoch"]) == [1, 2]
    assert list(pd.read_csv(run / "teacher/metrics.csv")["epoch"]) == [1, 2, 3]
    log = (run / "log.txt").read_text()
    for line in ("data: digits", "teacher logits: 2 views", "supernet: digits in"):
        assert log.count(line) == 1 and done.stderr.count(line) == 1
    assert done.stderr.count("supernet 0/2 epochs") == 1
    assert not [path for path in run.rglob("*") if path.suffix in (".tmp", ".old")]


def test_one_process_goes_on_from_there(made: tuple[Path, Any], config: Path) -> None:
    run, _ = made
    before = digests(run)
    assert main(["supernet", str(config), "--run", str(run)]) == 0
    assert digests(run) == before


@pytest.mark.parametrize("command", ["search", "describe", "report"])
def test_a_command_for_one_process_says_so(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, who in ((0, "nas-kd:"), (1, "nas-kd (rank 1):")):
        for name, value in (("TORCHELASTIC_RUN_ID", "test"), ("RANK", str(number)), ("WORLD_SIZE", "2")):
            monkeypatch.setenv(name, value)
        assert main([command, "--run", str(tmp_path / "run")]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"{who} command={command!r}: expected run or supernet with 2 processes")
    assert not (tmp_path / "run").exists()


def test_a_batch_for_one_process_is_refused_before_any_training(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = config.parent / "odd"
    monkeypatch.setattr(Runtime, "world", property(lambda self: 2))
    assert main(["supernet", str(config), "--run", str(run), "--supernet.batch_size", "31"]) == 2
    assert "nas-kd: supernet.batch_size=31: expected a multiple of 2" in capsys.readouterr().err
    assert not (run / "teacher").exists() and not (run / "supernet").exists()


def test_a_lost_first_process_is_no_traceback(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lost(text: str) -> None:
        def supernet(self: Pipeline) -> None:
            raise RuntimeError(text)

        monkeypatch.setattr(Pipeline, "supernet", property(supernet))

    for name, value in (("TORCHELASTIC_RUN_ID", "test"), ("RANK", "1"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    lost("[pair.cc:536] Connection closed by peer [127.0.0.1]:1")
    assert main(["supernet", str(config), "--run", str(config.parent / "lost")]) == 1
    assert capsys.readouterr().err == "nas-kd (rank 1): the first process has stopped; see its message\n"
    lost("another mistake")
    with pytest.raises(RuntimeError, match="another mistake"):
        main(["supernet", str(config), "--run", str(config.parent / "lost")])


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_whole_run_ends_as_one(config: Path) -> None:
    run = config.parent / "whole"
    done = torchrun(config.parent, "run", config, "--run", run, "--workers", 2)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("student: ") == 1 and (run / "report/report.html").is_file()
    for stage in ("teacher", "supernet", "blockwise", "search"):
        assert json.loads((run / stage / "stage.json").read_text())["done"]
