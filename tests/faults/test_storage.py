"""Storage that fails or was damaged: the run goes on from what is good, or says which file and what to do."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import Made, Said, changes, environment, numbers

from nas_kd.errors import SettingError
from nas_kd.runs.files import CsvLog
from nas_kd.runs.folder_lock import folder_lock
from nas_kd.runs.leases import FileLeases, Lease
from nas_kd.runs.run import Run
from nas_kd.runs.stage import Stage
from nas_kd.train.loop import StepInfo
from tests.faults.trainings import few_images, stage_in, train

Main = Callable[..., Said]
Fork = Callable[..., tuple[int, str]]


def _cut(path: Path, share: float = 0.6) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def _flip(path: Path) -> None:
    """Flip a bit of the last number: in weights a change that nothing but a checksum sees."""
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)


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
    "checkpoint": ("supernet/last.pt", True, ["last.pt", "undamaged", "the stage then starts over"]),
    "ratings' checkpoint": ("blockwise/last.pt", True, ["last.pt", "undamaged"]),
    "supernet": ("supernet/weights.safetensors", False, ["supernet/weights.safetensors", "delete"]),
    "teacher": ("teacher/weights.safetensors", False, ["teacher/weights.safetensors", "delete"]),
    "stage": ("blockwise/stage.json", False, ["blockwise/stage.json", "delete"]),
    "table": ("blockwise/stage_2.csv", False, ["blockwise/stage_2.csv", "delete"]),
    "best": ("search/best.json", False, ["best.json", "delete"]),
    "space": ("space.json", False, ["space.json", "delete"]),
    "environment": ("env.json", False, ["env.json", "delete"]),
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
    "flipped": lambda path: _flip(path),
}
FIRST = {(name, "cut") for name in DAMAGED} | {
    ("stage", "garbage"),
    ("stage", "other"),
    ("best", "gone"),
    ("table", "empty"),
    ("table", "gone"),
    ("checkpoint", "empty"),
    ("views", "gone"),
    ("cache", "gone"),
    ("answers", "empty"),
    ("layers", "other"),
    ("supernet", "flipped"),
    ("teacher", "flipped"),
    ("student", "flipped"),
}
CASES = [
    pytest.param(name, how, marks=() if (name, how) in FIRST else pytest.mark.slow)
    for name in DAMAGED
    for how in HOW
    if (name, how) != ("space", "other")  # is simply another space
    and (how != "flipped" or (name, how) in FIRST)  # tables have no checksum
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
    for part in [*parts, ": expected "]:
        assert part in line, line


# where the disk becomes full, which time that file is written, and whether half of it still fits
FULL = [
    (r"run/config\.yaml$", 1, "full"),
    (r"supernet/last\.pt$", 2, "full"),
    (r"supernet/metrics\.csv$", 1, "short"),
    (r"blockwise/half_2\.csv$", 1, "full"),
    (r"search/trials\.csv$", 15, "short"),
    (r"search/study\.journal$", 1, "full"),
    (r"search/short/\w+/student$", 2, "full"),
    (r"teacher/cache/\w+/cache\.json$", 1, "full"),
    (r"retrain/\w+/seed_1/metrics\.csv$", 1, "full"),
    (r"report/report\.html$", 1, "full"),
]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_disk_that_fills_up_again_and_again(made: Made, tmp_path: Path, fork: Fork) -> None:
    run = tmp_path / "run"
    for path, nth, what in FULL:
        code, text = fork("run", made.config, "--run", run, fault={"path": path, "nth": nth, "what": what})
        _stopped(code, text, "the disk is full", "free space and run the same command again")
    code, text = fork("run", made.config, "--run", run, fault={"what": "quota", "quota": 30_000})
    _stopped(code, text, "the limit on a file's size is reached", "free space", str(run))
    for folder in (run / "report", run):  # what was writable once need not stay so
        folder.mkdir(exist_ok=True)
        folder.chmod(0o555)
        code, text = fork("run", made.config, "--run", run, fault={"what": "denied"})
        folder.chmod(0o755)
        _stopped(code, text, "permission is denied", "choose another --run", str(folder))
    code, text = fork("run", made.config, "--run", run)
    assert code == 0, text
    assert changes(numbers(made.run), numbers(run)) == []
    assert not list(run.rglob(".*.tmp"))


def _stopped(code: int, text: str, *parts: str) -> None:
    assert code == 2 and "Traceback" not in text, text
    line = next(line for line in text.splitlines() if line.startswith("nas-kd: "))
    assert all(part in line for part in parts), line


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("only root may mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_really_full(small_disk: Path, tmp_path: Path) -> None:
    data = few_images()
    whole = train(data, stage_in(tmp_path / "whole"))
    filler, stage = small_disk / "filler", stage_in(small_disk / "run")

    def fill(info: StepInfo) -> None:
        if info[:2] == (1, 4):
            with pytest.raises(OSError), open(filler, "wb", buffering=0) as file:
                while True:
                    file.write(bytes(512))

    with pytest.raises(SettingError, match=r"supernet/(last\.pt|metrics\.csv).*the disk is full.*free space"):
        train(data, stage, fill)
    state = stage.load()
    assert state is not None and state["epoch"] == 1 and not list(small_disk.rglob("*.tmp"))
    assert (stage.folder / "metrics.csv").read_text().endswith("\n")
    filler.unlink()
    ended = train(data, stage_in(small_disk / "run"))
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), ended.state_dict().values(), strict=True))
    names = (tmp_path / "whole/supernet/metrics.csv", stage.folder / "metrics.csv")
    assert names[0].read_bytes() == names[1].read_bytes()


@pytest.mark.parametrize("name", ["log.txt", "status.json"])
def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path, name: str) -> None:
    run = Run(tmp_path / "run")
    (run.path / name).unlink(missing_ok=True)
    (run.path / name).mkdir()
    with pytest.raises(SettingError, match=rf"run={re.escape(repr(str(run.path / name)))}.*a file.*move it away"):
        if name == "log.txt":
            run.log_message("a line")
        else:
            run.write_status({"stage": "supernet"})


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "leases").write_text("mine")
    with pytest.raises(SettingError, match=r"leases.*a folder: a file has its name.*move it away"):
        FileLeases(tmp_path / "leases").put(replace(Lease.own(), worker="mine"))
    with pytest.raises(SettingError, match=r"leases.*a folder: a file has the name"):
        FileLeases(tmp_path / "leases" / "below").put(replace(Lease.own(), worker="mine"))
    assert (tmp_path / "leases").read_text() == "mine"


def test_half_a_row_that_fitted_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, real = CsvLog(tmp_path / "a.csv"), os.write
    log.append({"epoch": 1, "loss": 0.5})
    before, left = log.path.read_bytes(), [5]

    def write(handle: int, data: bytes) -> int:
        count = min(len(data), left[0])
        left[0] -= count
        if not count:
            raise OSError(errno.ENOSPC, "no space")
        return real(handle, data[:count])

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(SettingError, match=r"a\.csv.*the disk is full"):
        log.append({"epoch": 2, "loss": 0.25})
    assert log.path.read_bytes() == before
    left[0] = 3
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, data[:3]))  # a disk that takes it in bits
    log.append({"epoch": 2, "loss": 0.25})
    assert log.path.read_bytes() == before + b"2,0.25\n"


def _saved(tmp_path: Path) -> tuple[Stage, list[dict[str, Any]]]:
    """A stage with two checkpoints, and what is in them."""
    stage = stage_in(tmp_path)
    states = [{"epoch": n, "net": {"w": torch.arange(50.0) + n, "b": torch.zeros(3, 4)}} for n in (1, 2)]
    for state in states:
        stage.save(state)
    return stage, states


def _alike(a: dict[str, Any] | None, b: dict[str, Any]) -> bool:
    return a is not None and a["epoch"] == b["epoch"] and all(torch.equal(a["net"][k], b["net"][k]) for k in b["net"])


def test_no_flipped_bit_of_a_checkpoint_goes_unnoticed(tmp_path: Path) -> None:
    """A flip is found, and the checkpoint before is used, or it is where nothing is kept."""
    stage, (before, last) = _saved(tmp_path)
    path, kept = stage.folder / "last.pt", (stage.folder / "previous.pt").read_bytes()
    whole, draw, found = path.read_bytes(), random.Random(0), 0
    for _ in range(400):
        (stage.folder / "previous.pt").write_bytes(kept)
        place = draw.randrange(8 * len(whole))
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        state = stage.load()
        if _alike(state, before):
            found += 1
            assert not path.exists()
        else:
            assert _alike(state, last), place
    assert found > 100


@pytest.mark.parametrize("how", ["cut", "empty", "garbage", "gone"])
def test_the_last_good_checkpoint_is_used(how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage, (before, _) = _saved(tmp_path)
    path = stage.folder / "last.pt"
    HOW[how](path)
    assert _alike(stage.load(), before)
    said = capsys.readouterr().err
    assert how == "gone" or (f"{path} is damaged" in said and "previous.pt" in said)
    HOW[how](stage.folder / "previous.pt")
    if how == "gone":
        assert stage.load() is None
    else:
        with pytest.raises(SettingError, match=r"previous\.pt.*undamaged.*the stage then starts over"):
            stage.load()


def test_a_training_goes_on_from_the_checkpoint_before(tmp_path: Path) -> None:
    data = few_images()
    whole = train(data, stage_in(tmp_path / "whole"))

    def die(info: StepInfo) -> None:
        assert info.epoch < 2

    with pytest.raises(AssertionError):
        train(data, stage_in(tmp_path / "cut"), die)
    path = tmp_path / "cut/supernet/last.pt"
    path.write_bytes(path.read_bytes()[:-100])
    ended = train(data, stage_in(tmp_path / "cut"))
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), ended.state_dict().values(), strict=True))
    rows = [(tmp_path / name / "supernet/metrics.csv").read_bytes() for name in ("whole", "cut")]
    assert rows[0] == rows[1]


def _note(folder: Path, **changed: Any) -> Path:
    """Leave the note of a process that holds the lock."""
    note = folder / ".lock.all"
    note.write_text(json.dumps(asdict(Lease.own()) | changed))
    return note


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    said: list[str] = []
    with folder_lock(tmp_path, None, said.append):
        with pytest.raises(SettingError, match=rf"no other command uses \(process {os.getpid()} on"):
            with folder_lock(tmp_path, None, said.append):
                pass
    assert (tmp_path / ".lock.all").read_bytes() == b"" and said == []
    code = (
        "import os, signal; from pathlib import Path; from nas_kd.runs.folder_lock import folder_lock\n"
        f"with folder_lock(Path({str(tmp_path)!r}), None, print): os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code], env=environment()).returncode == -9
    dead = Lease(**json.loads((tmp_path / ".lock.all").read_text()))
    with folder_lock(tmp_path, None, said.append):
        who = f"process {dead.pid} on {dead.host}"
        assert said == [f"taking over the stale lock of {who}, which ended without releasing it"]


def test_parts_go_together_but_not_with_the_whole(tmp_path: Path) -> None:
    def lock(part: str | None) -> Any:
        return folder_lock(tmp_path, part, lambda line: None)

    with lock("stage_1"), lock("stage_2"):
        for part in (None, "stage_1"):
            with pytest.raises(SettingError, match="no other command uses"):
                with lock(part):
                    pass
    with lock(None), pytest.raises(SettingError, match="no other command uses"):
        with lock("stage_1"):
            pass


def test_a_lock_of_another_machine_is_stale_when_nobody_renews_it(tmp_path: Path) -> None:
    said: list[str] = []
    note = _note(tmp_path, host="elsewhere", place="another boot", pid=7)
    os.utime(note, (1, 1))  # long ago: no need to wait
    with folder_lock(tmp_path, None, said.append, patience=0.5):
        assert said == ["taking over the stale lock of process 7 on elsewhere, which ended without releasing it"]
    said.clear()
    _note(tmp_path, host="elsewhere", place="another boot", pid=7)
    with folder_lock(tmp_path, None, said.append, patience=0.5):  # it waits to see
        assert len(said) == 2 and "waiting up to" in said[0]


def test_a_lock_of_another_machine_that_is_renewed_is_kept(tmp_path: Path) -> None:
    note, ended = _note(tmp_path, host="elsewhere", place="another boot", pid=7), threading.Event()

    def renew() -> None:
        while not ended.wait(0.02):
            os.utime(note)

    other = threading.Thread(target=renew)
    other.start()
    try:
        with pytest.raises(SettingError, match=r"\(process 7 on elsewhere is\)"):
            with folder_lock(tmp_path, None, lambda line: None, patience=30):
                pass
    finally:
        ended.set()
        other.join()


def test_a_holder_renews_its_note(tmp_path: Path) -> None:
    with folder_lock(tmp_path, None, lambda line: None, heartbeat=0.02):
        os.utime(tmp_path / ".lock.all", (1, 1))
        while (tmp_path / ".lock.all").stat().st_mtime < 2:
            threading.Event().wait(0.01)
