"""``python -O`` drops every assert; a command must do the same without them."""

from __future__ import annotations

import json
import subprocess
import sys
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


def test_an_infeasible_budget_is_refused_before_any_training(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nas_kd", "run", str(ROOT / "experiments/digits.yaml"), "--run", "run"]
    done = subprocess.run(
        [*command, "--search.max_macs", "1%"],
        cwd=tmp_path,
        env=environment() | OPTIMIZED,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 2, done.stderr
    assert "max_macs" in done.stderr and "1%" in done.stderr
    assert not [name for name in ("teacher", "supernet", "search") if (tmp_path / "run" / name).exists()]


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
