"""Training by two processes, one of which is lost: the other ends with an error, and a restart ends with the same."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import two_processes
from database import free_port
from forks import Forks, Started
from small_run import environment

from nas_kd.cli import main
from nas_kd.errors import SettingError
from nas_kd.runtime.device import Runtime
from nas_kd.runtime.ranks import forget_launcher, launched

CONFIG = """\
space: digits
device: cpu
threads: 1
data: {train: digits, subset: 160, rate: 0.15, select: 0.15}
teacher: {model: null}
supernet: {epochs: 4, batch_size: 32, lr: 0.05, dropout: 0.1}
retrain: {batch_size: 32}
"""
COMMAND = ["-m", "nas_kd", "supernet", "config.yaml", "--run", "run"]
LIMIT = 200  # seconds


def srun(number: int, port: int) -> dict[str, str]:
    """What srun tells its task ``number`` of two on one node, as far as Fabric asks."""
    told = {
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "nas_kd",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NNODES": "1",
        "SLURM_NODEID": "0",
        "SLURM_PROCID": str(number),
        "SLURM_LOCALID": str(number),
        "SLURM_NODELIST": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    return environment() | told


@contextmanager
def two_tasks(fork: Forks, folder: Path) -> Iterator[list[Started]]:
    """Start two processes as srun does: nobody but themselves ends one when the other is lost."""
    port = free_port()
    tasks = [fork.start(*COMMAND[2:], cwd=folder, env=srun(number, port)) for number in range(2)]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.kill()
            task.wait(LIMIT)


def trained(folder: Path) -> str:
    run = folder / "run" / "supernet"
    assert json.loads((run / "stage.json").read_text())["done"]
    files = [(run / name).read_bytes() for name in ("weights.safetensors", "metrics.csv")]
    return hashlib.sha256(b"".join(files)).hexdigest()


def folder_of(base: Path, name: str) -> Path:
    (base / name).mkdir()
    (base / name / "config.yaml").write_text(CONFIG)
    return base / name


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, fork: Forks) -> str:
    folder = folder_of(tmp_path_factory.mktemp("srun"), "whole")
    with two_tasks(fork, folder) as tasks:
        assert [task.wait(LIMIT) for task in tasks] == [0, 0], [task.said for task in tasks]
        said = [task.said for task in tasks]
    assert said[0].count("supernet 0/4 epochs") == 1 and "epochs" not in said[1]  # the first alone speaks
    return trained(folder)


def until(path: Path, tasks: Sequence[Started | subprocess.Popen[str]]) -> None:
    end = time.monotonic() + LIMIT
    while not path.exists():
        assert time.monotonic() < end and all(task.poll() is None for task in tasks)
        time.sleep(0.01)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("lost", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_srun_tasks_join_and_go_on_after_one_is_killed(
    undisturbed: str, tmp_path: Path, fork: Forks, lost: int
) -> None:
    folder = folder_of(tmp_path, "killed")
    with two_tasks(fork, folder) as tasks:
        until(folder / "run/supernet/last.pt", tasks)
        tasks[lost].kill()
        assert tasks[1 - lost].wait(LIMIT) == 1
        said = tasks[1 - lost].said
    assert "process has stopped; see its message" in said and "Traceback" not in said
    assert not json.loads((folder / "run/supernet/stage.json").read_text())["done"]
    with two_tasks(fork, folder) as tasks:
        assert [task.wait(LIMIT) for task in tasks] == [0, 0], [task.said for task in tasks]
        assert "supernet 0/4" not in tasks[0].said
    assert trained(folder) == undisturbed


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_torchrun_ends_with_an_error_when_one_is_killed(undisturbed: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "killed")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "--", *COMMAND[1:]]
    torchrun = subprocess.Popen(command, cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True)
    until(folder / "run/supernet/last.pt", [torchrun])
    os.kill(process_of(torchrun.pid, "RANK=1"), 9)
    assert torchrun.wait(LIMIT) != 0
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0 and trained(folder) == undisturbed, done.stderr[-2000:]


def process_of(parent: int, told: str) -> int:
    """Find the child that was started with a variable."""
    for children in Path(f"/proc/{parent}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            if told in Path(f"/proc/{child}/environ").read_text().split("\0"):
                return child
    raise AssertionError(f"no child of {parent} has {told}")


@pytest.mark.slow
def test_silence_is_noticed_and_long_work_is_not_taken_for_it(tmp_path: Path) -> None:
    port, command = free_port(), [sys.executable, str(two_processes.__file__)]
    first, second = (
        subprocess.Popen(command, cwd=tmp_path, env=srun(number, port), stderr=subprocess.PIPE, text=True)
        for number in range(2)
    )
    try:
        said = first.communicate(timeout=LIMIT)[1]
        assert first.returncode == 3, said
    finally:
        for task in (first, second):
            task.kill()
            task.communicate()


def test_what_srun_tells_is_what_fabric_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    for name, value in srun(1, 1234).items():
        monkeypatch.setenv(name, value)
    there = SLURMEnvironment()
    assert SLURMEnvironment.detect() and launched() == (there.global_rank(), there.world_size()) == (1, 2)
    monkeypatch.setenv("SLURM_JOB_NAME", "interactive")
    assert not SLURMEnvironment.detect() and launched() == (0, 1)
    monkeypatch.setenv("SLURM_JOB_NAME", "nas_kd")
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE")
    with pytest.raises(SettingError, match="--ntasks-per-node"):
        Runtime("cpu")
    forget_launcher()
    assert not SLURMEnvironment.detect() and launched() == (0, 1)
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "2")
    monkeypatch.setenv("SLURM_NTASKS", "1")  # one process in a reservation for two
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert Runtime("cpu").world == 1


def test_srun_starts_as_many_workers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in srun(1, 1234).items():
        monkeypatch.setenv(name, value)
    assert main(["search", "--run", "nowhere", "--space", "digits", "--teacher.model", "null"]) == 2
    assert "expected run or supernet with 2 processes" in capsys.readouterr().err
    assert main(["search", "--run", "nowhere", "--space", "digits", "--teacher.model", "null", "--worker"]) == 2
    assert "a run whose supernet is finished" in capsys.readouterr().err and not Path("nowhere").exists()
