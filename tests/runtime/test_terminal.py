"""Standard streams that are closed, broken or poor in characters, a folder that is gone, and odd environments."""

from __future__ import annotations

import errno
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from small_run import environment

from nas_kd.cli import main
from nas_kd.errors import SettingError, escaped
from nas_kd.runtime.ranks import launched
from nas_kd.runtime.stop import time_limit
from nas_kd.runtime.terminal import BROKEN_PIPE

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def run_folder(path: Path, name: str = "supernet") -> Path:
    """A folder that ``status`` takes for a run, with one row of metrics of a name."""
    (path / "supernet").mkdir(parents=True)
    (path / "env.json").write_text('{"nas_kd": "0"}\n', encoding="utf-8")
    (path / "supernet" / "stage.json").write_text('{"done": false, "inputs": {}, "facts": {}}\n', encoding="utf-8")
    (path / "supernet" / "metrics.csv").write_text(f"epoch,{name}\n1,{name}\n", encoding="utf-8")
    return path


def shell(line: str, folder: Path, **more: str) -> subprocess.CompletedProcess[bytes]:
    words = ["bash", "-c", line.replace("NAS", f"{shlex.quote(sys.executable)} -m nas_kd")]
    return subprocess.run(words, cwd=folder, capture_output=True, env=environment() | more, timeout=250)


def test_streams_that_are_closed_or_broken(tmp_path: Path) -> None:
    run_folder(tmp_path / "run")
    for line, code in (
        ("(sleep 0.2; NAS status run; echo $? >code) | true; exit $(cat code)", BROKEN_PIPE),
        ("NAS status run >&-", 0),
        ("NAS status nowhere 2>&-", 2),
        ("NAS status run 2>&- <&- | grep -q supernet", 0),
        ("mkdir gone; cd gone; rmdir ../gone; NAS status ../run", 2),
    ):
        done = shell(line, tmp_path)
        assert done.returncode == code, (line, done)
        assert b"Traceback" not in done.stderr and b"Exception" not in done.stderr, (line, done.stderr)


def test_an_ascii_locale_shows_all_names(tmp_path: Path) -> None:
    run_folder(tmp_path / "run", "d\u00efgits")
    done = shell("NAS status run", tmp_path, **ASCII)
    assert done.returncode == 0 and b"d\\xefgits" in done.stdout, done


def test_what_a_terminal_would_obey_is_written_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_folder(tmp_path / "run", "\x1b]0;owned\x07")
    assert main(["status", str(run)]) == 0
    assert r"\x1b]0;owned\x07=\x1b]0;owned\x07" in capsys.readouterr().out
    assert escaped("a\x1b\nb\r", lines=True) == "a\\x1b\nb\\r" and escaped("a\nb") == "a\\nb"


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"SLURM_NTASKS": "abc"}, "SLURM_NTASKS"),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "x"}, "SLURM_PROCID"),
        ({"SLURM_NTASKS": "0"}, "SLURM_PROCID"),
        ({"TORCHELASTIC_RUN_ID": "1"}, "RANK"),
        ({"TORCHELASTIC_RUN_ID": "1", "RANK": "0", "WORLD_SIZE": "1e3"}, "WORLD_SIZE"),
        ({"TORCHELASTIC_RUN_ID": "1", "RANK": "2", "WORLD_SIZE": "2"}, "RANK"),
        ({"TORCHELASTIC_RUN_ID": "1", "RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "-"}, "LOCAL_RANK"),
    ],
)
def test_an_environment_of_no_launcher(
    given: dict[str, str],
    field: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.delenv("SLURM_JOB_NAME", raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingError) as caught:
        launched()
    assert caught.value.field == field
    assert main(["status", str(tmp_path)]) == 2 and capsys.readouterr().err.startswith(f"nas-kd: {field}=")


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, os.strerror(errno.EMFILE)), MemoryError()])
def test_a_machine_that_fails_is_one_message(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fail(_: str) -> str:
        raise error

    monkeypatch.setattr("nas_kd.runs.status.status", fail)
    assert main(["status", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("nas-kd: ")
    assert ("ulimit -n" in said) == isinstance(error, OSError)


@pytest.mark.parametrize("hours", [float("nan"), 0, -1.0, "8", None, True])
def test_no_time_limit_is_said(hours: float) -> None:
    with pytest.raises(SettingError, match="^hours="):
        time_limit(hours)


@pytest.mark.parametrize("hours", [1e300, float("inf")])
def test_a_limit_of_ages_is_none(hours: float) -> None:
    with time_limit(hours) as limit:
        pass
    assert limit.requested is None
