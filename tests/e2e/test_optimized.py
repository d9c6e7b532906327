"""``python -O`` drops every assert; a command must do the same without them."""

from __future__ import annotations

import json
import py_compile
import shutil
import subprocess
import sys
from importlib.util import cache_from_source
from pathlib import Path

import pytest
from small_run import ROOT, environment

OPTIMIZED = {"PYTHONOPTIMIZE": "1"}
TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--", "nas_kd"]
SUPERNET = """\
space: digits
device: cpu
threads: 1
data: {train: digits, subset: 160, rate: 0.15, select: 0.15}
teacher: {model: null}
supernet: {epochs: 2, batch_size: 32, lr: 0.05}
retrain: {batch_size: 32}
"""


def without_asserts(folder: Path) -> dict[str, str]:
    """Compile a copy of nas_kd without its asserts and return the environment of a process that runs it.

    With ``-O`` the interpreter would compile torch anew as well, which takes longer than the command. A module `probe`
    can only be imported where asserts are gone.
    """
    for package in ("nas_kd", "search_spaces"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "nas_kd/probe.py").write_text("assert False\n")
    for path in folder.rglob("*.py"):
        py_compile.compile(str(path), cache_from_source(str(path)), doraise=True, optimize=1)
    return environment() | {"PYTHONPATH": str(folder)}


def refused(done: subprocess.CompletedProcess[str], folder: Path) -> None:
    """Check that an infeasible budget ended a command before any training."""
    assert done.returncode == 2, done.stderr
    assert "max_macs" in done.stderr and "1%" in done.stderr
    assert not [name for name in ("teacher", "supernet", "search") if (folder / "run" / name).exists()]


INFEASIBLE = ["run", str(ROOT / "experiments/digits.yaml"), "--run", "run", "--search.max_macs", "1%"]


@pytest.mark.slow
def test_an_infeasible_budget_is_refused_before_any_training(tmp_path: Path) -> None:
    code = f"import sys, nas_kd.probe\nfrom nas_kd.cli import main\nsys.exit(main({INFEASIBLE!r}))"
    env = without_asserts(tmp_path / "copy")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    refused(done, tmp_path)


@pytest.mark.slow
def test_an_infeasible_budget_is_refused_where_no_library_has_asserts(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nas_kd", *INFEASIBLE]
    done = subprocess.run(command, cwd=tmp_path, env=environment() | OPTIMIZED, capture_output=True, text=True)
    refused(done, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_processes_do_not_wait_for_each_other(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(SUPERNET)
    done = subprocess.run(
        [sys.executable, *TWO, "supernet", "config.yaml", "--run", "run"],
        cwd=tmp_path,
        env=environment() | OPTIMIZED,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert json.loads((tmp_path / "run/supernet/stage.json").read_text())["done"]
