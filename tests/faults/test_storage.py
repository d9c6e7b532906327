"""Files that a crash or a full disk damaged: the run goes on, or says which file and what to do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from small_run import Made, Said, changes, numbers

Main = Callable[..., Said]
Fork = Callable[..., tuple[int, str]]


def _cut(path: Path, share: float = 0.6) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def _reopened(folder: Path) -> None:
    """Turn a finished stage back into one that was about to end."""
    file = folder / "stage.json"
    file.write_text(file.read_text().replace('"done": true', '"done": false'))


@pytest.mark.parametrize("name", ["timing.csv", "log.txt", "status.json", "search/study.journal"])
def test_half_of_a_file_that_only_tells(name: str, made: Made, copied: Path, nas_kd_main: Main) -> None:
    before = numbers(copied)
    _cut(copied / name)
    said = nas_kd_main("run", made.config, "--run", copied)
    assert said.code == 0, said.err
    assert changes(before, numbers(copied)) == []


def test_half_a_line_in_every_log_of_an_open_stage(made: Made, copied: Path, nas_kd_main: Main) -> None:
    before = numbers(copied)
    for stage, name in (("supernet", "metrics.csv"), ("blockwise", "metrics.csv"), ("search", "trials.csv")):
        path = copied / stage / name
        path.write_bytes(path.read_bytes()[:-9])
        _reopened(copied / stage)
    shutil.rmtree(copied / "retrain")
    said = nas_kd_main("search", made.config, "--run", copied)
    assert said.code == 0, said.err
    after = numbers(copied)
    # the last epoch's row was cut off, and its checkpoint knows that it was done
    lost = {"supernet/metrics.csv", "blockwise/metrics.csv"}
    assert {n for n in changes(before, after) if not n.startswith("retrain/")} <= lost


# a damaged file -> whether its stage must look open, and what the message must hold
DAMAGED: dict[str, tuple[str, bool, list[str]]] = {
    "checkpoint": ("supernet/last.pt", True, ["last.pt", "undamaged", "the stage then begins anew"]),
    "ratings' checkpoint": ("blockwise/last.pt", True, ["last.pt", "undamaged"]),
    "supernet": ("supernet/weights.safetensors", False, ["supernet/weights.safetensors", "delete"]),
    "teacher": ("teacher/weights.safetensors", False, ["teacher/weights.safetensors", "delete"]),
    "stage": ("blockwise/stage.json", False, ["blockwise/stage.json", "delete"]),
    "table": ("blockwise/stage_2.csv", False, ["blockwise/stage_2.csv", "delete"]),
    "best": ("search/best.json", False, ["best.json", "delete"]),
    "space": ("space.json", False, ["space.json", "the JSON that nas_kd wrote"]),
    "environment": ("env.json", False, ["env.json", "the JSON that nas_kd wrote"]),
    "student": ("retrain/KEY/seed_1/student/weights.safetensors", False, ["weights.safetensors"]),
    "layers": ("retrain/KEY/seed_0/student/arch.json", False, ["arch.json"]),
    "cache": ("teacher/cache/CACHE/cache.json", False, ["cache.json", "delete"]),
    "views": ("teacher/cache/CACHE/views.npy", False, ["teacher/cache", "delete"]),
    "answers": ("teacher/cache/CACHE/rate.npy", False, ["teacher/cache", "delete"]),
}
HOW: dict[str, Callable[[Path], object]] = {
    "cut": _cut,
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(b"\x00\xff garbage \xfe\n" * 40),
    "other": lambda path: path.write_text("{}\n"),
    "gone": lambda path: path.unlink(),
}
FIRST = {(name, "cut") for name in DAMAGED} | {
    ("stage", "garbage"), ("stage", "other"), ("best", "gone"), ("table", "empty"), ("table", "gone"),
    ("checkpoint", "empty"), ("views", "gone"), ("answers", "empty"), ("layers", "other"),
}  # fmt: skip
CASES = [
    pytest.param(name, how, marks=() if (name, how) in FIRST else pytest.mark.slow)
    for name in DAMAGED
    for how in HOW
    if (name, how) != ("space", "other")  # is simply another space
]


@pytest.mark.parametrize(("name", "how"), CASES)
def test_a_damaged_file_is_named_or_made_again(
    name: str, how: str, made: Made, copied: Path, nas_kd_main: Main
) -> None:
    place, reopen, parts = DAMAGED[name]
    key = next(path.name for path in (copied / "retrain").iterdir() if path.is_dir())
    cache = next(path.name for path in (copied / "teacher/cache").iterdir())
    path = copied / place.replace("KEY", key).replace("CACHE", cache)
    before = numbers(copied)
    if reopen:
        _reopened(path.parent)
    HOW[how](path)
    said = nas_kd_main("run", made.config, "--run", copied)
    assert "Traceback" not in said.err
    if said.code == 0:  # what can be computed again may be; then everything is as it was
        assert changes(before, numbers(copied)) == []
        return
    assert said.code == 2, said.err
    line = next(line for line in said.err.splitlines() if line.startswith("nas-kd: "))
    for part in [*parts, "; legal: "]:
        assert part in line, line


# where the disk becomes full, and which time that file is written
FULL = [
    (r"run/config\.yaml$", 1), (r"supernet/last\.pt$", 2), (r"blockwise/half_2\.csv$", 1),
    (r"search/trials\.csv$", 20), (r"search/study\.journal$", 1), (r"search/short/\w+/student$", 2),
    (r"teacher/cache/\w+/cache\.json$", 1), (r"retrain/\w+/seed_1/metrics\.csv$", 1), (r"report/report\.html$", 1),
]  # fmt: skip


def test_a_disk_that_fills_up_again_and_again(made: Made, tmp_path: Path, fork: Fork) -> None:
    run = tmp_path / "run"
    for path, nth in FULL:
        code, text = fork("run", made.config, "--run", run, fault={"path": path, "nth": nth, "what": "full"})
        assert code == 2, (path, text)
        assert "Traceback" not in text, path
        line = next(line for line in text.splitlines() if line.startswith("nas-kd: "))
        assert "the disk is full" in line and "free space and give the same command again" in line
    code, text = fork("run", made.config, "--run", run)
    assert code == 0, text
    assert changes(numbers(made.run), numbers(run)) == []
    assert not list(run.rglob(".*.tmp"))
