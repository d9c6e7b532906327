"""Fixtures of whole runs: one made once in a process of its own, copies of it, and commands of any kind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock  # comes with torch
from small_run import CONFIG, Made, Said, environment

from nas_kd.cli import main


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The finished run, by ``python -m nas_kd run`` in a process of its own; do not write into it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder = shared / "made"
    config, run, said = folder / "mini.yaml", folder / "run", folder / "said.json"
    with FileLock(shared / "made.lock"):
        if not said.exists():
            folder.mkdir()
            config.write_text(CONFIG)
            command = [sys.executable, "-m", "nas_kd", "run", str(config), "--run", str(run)]
            done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment())
            said.write_text(json.dumps([done.returncode, done.stdout, done.stderr]))
    return Made(config, run, *json.loads(said.read_text()))


@pytest.fixture
def copied(made: Made, tmp_path: Path) -> Path:
    """A copy of the finished run to change."""
    return Path(shutil.copytree(made.run, tmp_path / "run"))


@pytest.fixture
def nas_kd_main(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Said]:
    """Run a command in this process, in an empty working folder."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")

    def call(*arguments: object) -> Said:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        return Said(code, *capfd.readouterr())

    return call


@pytest.fixture(scope="session")
def fork(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., tuple[int, str]]]:
    """Run a command in a forked process, broken by ``fault`` or killed ``after`` CPU seconds; exit code, output."""
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "faults" / "forks.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=tmp_path_factory.mktemp("forks"),
    )
    assert server.stdin is not None and server.stdout is not None
    logs = tmp_path_factory.mktemp("logs")

    def call(*arguments: object, fault: dict[str, Any] | None = None, after: float | None = None) -> tuple[int, str]:
        log = logs / f"{len(list(logs.iterdir()))}.txt"
        job = {"argv": [str(argument) for argument in arguments], "log": str(log), "fault": fault, "after": after}
        print(json.dumps(job), file=server.stdin, flush=True)
        code = int(server.stdout.readline())
        return code, log.read_text()

    yield call
    server.stdin.close()
    server.wait(timeout=60)
