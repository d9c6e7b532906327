"""Fixtures of whole runs: one made once in a process of its own, copies of it, and commands of any kind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
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


class Started:
    """A command in a forked process beside the test, with what tests use of `subprocess.Popen`.

    Args:
        ask: asks the server that forked it.
        pid: its process.
        log: where its output goes.
    """

    def __init__(self, ask: Callable[[dict[str, Any]], int | None], pid: int, log: Path) -> None:
        self._ask, self.pid, self._log = ask, pid, log
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return its exit code, or None while it runs."""
        if self.returncode is None:
            self.returncode = self._ask({"ended": self.pid})
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Return its exit code, at most so many seconds later."""
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            assert time.monotonic() < end, self.said
            time.sleep(0.01)
        return code

    def kill(self) -> None:
        """End it, if it runs."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    @property
    def said(self) -> str:
        """Its output so far."""
        return self._log.read_text()


class Forks:
    """Commands in processes forked from one that has everything imported.

    Args:
        server: the process.
        logs: a folder for their output.
    """

    def __init__(self, server: subprocess.Popen[str], logs: Path) -> None:
        self._server, self._logs = server, logs

    def __call__(self, *arguments: object, **how: Any) -> tuple[int, str]:
        """Run a command; arguments as `start`, and seconds of its processor time ``after`` which it is killed.

        Returns:
            Exit code and output.
        """
        log = self._log()
        code = self._ask(self._job(arguments, log, **how))
        assert code is not None
        return code, log.read_text()

    def start(self, *arguments: object, log: Path | None = None, **how: Any) -> Started:
        """Run a command beside the test.

        Args:
            arguments: the command's.
            log: where its output goes.
            how: ``fault``, arguments of ``faults.arm``; ``env``, further variables; ``cwd``, where it works.
        """
        log = log or self._log()
        pid = self._ask(self._job(arguments, log, beside=True, **how))
        assert pid is not None
        return Started(self._ask, pid, log)

    def _log(self) -> Path:
        return self._logs / f"{len(list(self._logs.iterdir()))}.txt"

    def _job(self, arguments: tuple[object, ...], log: Path, **how: Any) -> dict[str, Any]:
        log.touch()
        cwd = how.pop("cwd", None)
        job = {"argv": [str(one) for one in arguments], "log": str(log), "fault": None, "env": {}, **how}
        return job | {"cwd": None if cwd is None else str(cwd)}

    def _ask(self, job: dict[str, Any]) -> int | None:
        assert self._server.stdin is not None and self._server.stdout is not None
        print(json.dumps(job), file=self._server.stdin, flush=True)
        answer: int | None = json.loads(self._server.stdout.readline())
        return answer


@pytest.fixture(scope="session")
def fork(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """Run commands in forked processes: broken by a fault, killed, beside each other."""
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "faults" / "forks.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=tmp_path_factory.mktemp("forks"),
    )
    assert server.stdin is not None
    yield Forks(server, tmp_path_factory.mktemp("logs"))
    server.stdin.close()
    server.wait(timeout=60)
