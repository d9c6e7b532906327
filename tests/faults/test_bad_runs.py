"""Mutated files of a finished run: what commands say of them, and that nothing outside of the run is touched."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from bad_runs import COMMANDS
from small_run import Made, digests, environment

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")  # but tabs and line ends


def faults(made: Made, folder: Path, first: int, last: int, *commands: str) -> list[str]:
    """Try mutations by number. Returns what was wrong with the answers."""
    command = [sys.executable, str(Path(__file__).with_name("watched.py")), str(made.run), str(folder)]
    command += [str(first), str(last), *commands]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr[-2000:]
    wrong = []
    for line in done.stdout.splitlines():
        said = json.loads(line)
        err = str(said["err"])
        checks = {
            f"exit code {said['code']}: {err[-800:]}": said["code"] in (0, 1, 2),
            f"a traceback: {err[-800:]}": "Traceback" not in err,
            f"an error of the system alone: {err[-800:]}": "[Errno" not in err,
            f"control characters: {said['out'][-200:]!r}": not CONTROL.search(said["out"] + err),
            f"outside: {said['outside'][:5]}": not said["outside"],
            f"not one message: {err[-800:]}": said["code"] != 2 or err.count("nas-kd: ") == 1,
        }
        wrong += [
            f"{said['number']} {said['command']}, {said['what']}: {what}" for what, ok in checks.items() if not ok
        ]
    return wrong


def test_a_sample_of_mutated_runs(made: Made, tmp_path: Path) -> None:
    before = digests(made.run)
    wrong = faults(made, tmp_path, 0, 4)
    assert not wrong, "\n".join(wrong)
    assert digests(made.run) == before


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_thousand_mutated_runs(made: Made, tmp_path: Path) -> None:
    before = digests(made.run)
    wrong = faults(made, tmp_path, 0, 1000, *COMMANDS)
    assert not wrong, "\n".join(wrong)
    assert digests(made.run) == before


def test_the_watcher_sees_what_is_outside(tmp_path: Path) -> None:
    code = """
import os, sys, pathlib, watched
inside = pathlib.Path(sys.argv[1])
watcher = watched.Watcher(inside)
watcher.on = True
(inside / "a").write_text("a")
os.rename(inside / "a", inside / "b")
open(os.devnull, "w").close()
assert not watcher.found, watcher.found
beside = inside.parent
for act in (
    lambda: (beside / "c").write_text("c"),
    lambda: os.rename(inside / "b", beside / "d"),
    lambda: os.remove(inside / ".." / "c"),
    lambda: os.mkdir(beside / "e"),
    lambda: os.open(beside / "f", os.O_CREAT | os.O_WRONLY),
    lambda: os.system("true"),
):
    watcher.found.clear()
    act()
    assert len(watcher.found) == 1, watcher.found
"""
    (tmp_path / "run").mkdir()
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    path = f"{Path(__file__).parent}:{environment()['PYTHONPATH']}"
    done = subprocess.run(command, capture_output=True, text=True, env=environment() | {"PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
