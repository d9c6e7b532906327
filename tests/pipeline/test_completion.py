"""A shell completes commands, settings and the words of settings."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from nas_kd.cli import main
from nas_kd.config.settings import settings_of
from nas_kd.export.config import ExportConfig
from nas_kd.pipeline.command_table import COMMANDS
from nas_kd.pipeline.config import Config

bash = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")


@pytest.fixture
def script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["--completion"]) == 0
    path = tmp_path / "completion.sh"
    path.write_text(capsys.readouterr().out)
    return path


def completed(script: Path, *words: str) -> list[str]:
    """Return what bash offers for the last of some words."""
    line = " ".join(f"'{word}'" for word in words)
    code = f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _nas_kd; "
    code += "printf '%s\\n' \"${COMPREPLY[@]}\""
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, cwd=script.parent)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return [word for word in done.stdout.splitlines() if word]


@bash
def test_commands(script: Path) -> None:
    assert completed(script, "nas-kd", "") == list(COMMANDS)
    assert completed(script, "nas-kd", "re") == ["retrain", "report"]


@bash
def test_settings_are_those_of_the_command(script: Path) -> None:
    flags = {"--help", "-h", "--help_all", "--print_config"}
    assert set(completed(script, "nas-kd", "run", "-")) == {f"--{name}" for name in settings_of(Config)} | flags
    assert set(completed(script, "nas-kd", "export", "S", "-")) == {f"--{n}" for n in settings_of(ExportConfig)} | flags
    assert completed(script, "nas-kd", "run", "--search.max_l") == ["--search.max_latency_ms"]


@bash
def test_words_of_a_setting_and_files(script: Path) -> None:
    assert completed(script, "nas-kd", "run", "--precision", "") == ["32-true", "bf16-mixed"]
    assert completed(script, "nas-kd", "run", "--supernet.compile", "t") == ["true"]
    assert completed(script, "nas-kd", "export", "S", "--to", "t") == ["torchscript", "timm"]
    (script.parent / "mine.yaml").touch()
    assert completed(script, "nas-kd", "run", "mi") == ["mine.yaml"]
