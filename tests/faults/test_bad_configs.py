"""Every bad configuration ends with exit code 2 and one message that helps, before torch, and harms nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from bad_configs import ILLEGAL, Bad, bad_configs
from small_run import environment

from nas_kd.config.settings import settings_of
from nas_kd.pipeline.config import Config

MESSAGE = re.compile(r"nas-kd: .+?=.+: expected .+; hint: .+", re.DOTALL)
LONGEST = 3000  # characters of a message
NAMES = tuple(settings_of(Config))


def test_every_setting_is_tried() -> None:
    assert set(ILLEGAL) == set(NAMES), "a new setting needs values that it cannot take in bad_configs.ILLEGAL"


def faults(bad: list[Bad], folder: Path) -> list[str]:
    """Try bad configurations in one process without torch.

    Args:
        bad: the configurations.
        folder: an empty one to work in; runs/mine and runs/digits, where they would write, are given content.

    Returns:
        What was wrong with the answers.
    """
    for name in ("mine", "digits"):
        run = folder / "runs" / name
        run.mkdir(parents=True)
        (run / "env.json").write_text('{"nas_kd": "0.1.0"}')
        (run / "config.yaml").write_text("space: digits\n")
    before = _contents(folder / "runs")
    jobs = []
    for number, one in enumerate(bad):
        path = folder / str(number) / "mine.yaml"
        path.parent.mkdir()
        if one.file is not None:
            path.write_bytes(one.file)
        jobs.append([str(path) if argument == "FILE" else argument for argument in one.argv])
    told = answers(jobs, folder)
    wrong = [f"{one.name}: {fault}" for one, said in zip(bad, told, strict=True) for fault in fault_of(one.part, said)]
    if _contents(folder / "runs") != before or list(folder.glob("**/PWNED")):
        wrong.append("something was written")
    return wrong


def answers(jobs: list[list[str]], folder: Path, *flags: str) -> list[dict[str, object]]:
    """Run commands in one process of their own; see batch.py."""
    (folder / "jobs.json").write_text(json.dumps(jobs))
    command = [sys.executable, str(Path(__file__).with_name("batch.py")), str(folder / "jobs.json"), *flags]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=3000, env=environment())
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def fault_of(part: str, said: dict[str, object]) -> list[str]:
    """List what is wrong with one answer."""
    error = str(said["err"])
    lines = [line for line in error.splitlines() if line.startswith("nas-kd: ")]
    line = lines[0] if lines else ""
    checks = {
        f"exit code {said['code']}: {error[-500:]}": said["code"] == 2,
        f"not one message: {error[-500:]}": len(lines) == 1 and error.endswith(f"{line}\n"),
        f"not field, value, range and hint: {line[:500]}": MESSAGE.fullmatch(line) is not None,
        f"no word of {part}: {line[:500]}": part in line,
        f"{len(line)} characters": len(line) <= LONGEST,
    }
    return [fault for fault, good in checks.items() if not good]


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_sample_of_bad_configs(tmp_path: Path) -> None:
    wrong = faults(bad_configs(160, names=NAMES), tmp_path)
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_all_bad_configs(tmp_path: Path) -> None:
    bad = bad_configs(names=NAMES)
    assert len(bad) >= 1000
    wrong = faults(bad, tmp_path)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("number", range(4))
def test_in_a_process_of_its_own(number: int, tmp_path: Path) -> None:
    one = [bad for bad in bad_configs(40, seed=1, names=NAMES) if bad.file is not None][number]
    (tmp_path / "mine.yaml").write_bytes(one.file or b"")
    command = [sys.executable, "-m", "nas_kd", *("mine.yaml" if part == "FILE" else part for part in one.argv)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, env=environment())
    said = {"code": done.returncode, "err": done.stderr}
    assert fault_of(one.part, said) == [], one.name
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]
