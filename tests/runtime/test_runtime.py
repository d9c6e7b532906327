"""Seeds, devices, worker processes and progress."""

from __future__ import annotations

import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import nas_kd
from nas_kd.errors import SettingError
from nas_kd.runs.place import Place
from nas_kd.runs.progress import Progress
from nas_kd.runs.run import Run
from nas_kd.runtime.device import Runtime
from nas_kd.runtime.jobs import run_jobs
from nas_kd.runtime.ranks import (
    all_gather,
    barrier,
    broadcast,
    in_worker,
    launched,
    leave_group,
    rank,
    rank_zero_first,
    world,
)
from nas_kd.runtime.seeds import seed_for, seeded


def test_seeds_are_the_same_everywhere_and_differ_by_every_part() -> None:
    assert seed_for(0, "order", 3) == 8483304753239185838
    parts = [(seed, what, epoch) for seed in range(20) for what in ("order", "arch") for epoch in range(20)]
    drawn = {seed_for(*part) for part in parts}
    assert len(drawn) == 800
    assert all(0 <= seed < 2**63 for seed in drawn)
    assert seed_for(1, 23) != seed_for(12, 3) and seed_for("1") != seed_for(1)


def test_seeded_fixes_all_three_generators() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    seeded(0, "a", 1)
    first = draw()
    seeded(0, "a", 2)
    assert all(a != b for a, b in zip(first, draw(), strict=True))
    seeded(0, "a", 1)
    assert draw() == first


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("device", {"device": "gpu"}),
        ("device", {"device": "cuda:x"}),
        ("device", {"device": f"cuda:{torch.cuda.device_count()}"}),
        ("precision", {"precision": "bf16"}),
        ("threads", {"threads": 0}),
    ],
)
def test_runtime_refuses(name: str, settings: dict[str, object]) -> None:
    with pytest.raises(SettingError) as caught:
        Runtime(**settings)  # type: ignore[arg-type]
    assert caught.value.field == name


def test_runtime_precision_reaches_a_forward_pass() -> None:
    layer, x = torch.nn.Linear(4, 4), torch.ones(2, 4)
    for precision, dtype in (("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)):
        runtime = Runtime("cpu", precision, threads=1)
        with runtime.autocast():
            assert layer(x).dtype == dtype
        assert runtime.env() == {"device": "cpu", "precision": precision, "threads": 1}


def as_rank(monkeypatch: pytest.MonkeyPatch, number: int, processes: int, here: int | None = None) -> None:
    """Give this process the environment that torchrun would."""
    given = {"RANK": number, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": here or processes, "LOCAL_RANK": number}
    for name, value in ({"TORCHELASTIC_RUN_ID": "test"} | given).items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.skipif(sys.platform != "linux", reason="it is glibc that hands memory back")
def test_a_runtime_on_the_cpu_keeps_the_memory_of_freed_tensors() -> None:
    """Page faults of tensors made and freed again and again: thousands each time, or only the first time."""
    program = (
        "import resource, sys, torch, nas_kd.runtime.device\n"
        "if sys.argv[1] == 'kept': nas_kd.runtime.device.Runtime('cpu', 'bf16-mixed').autocast()\n"
        "assert 'lightning_fabric' not in sys.modules\n"  # which takes a second and a half
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(20): torch.ones(12_000_000)\n"  # by then a few blocks of the heap serve all the next ones
        "before = faults()\n"
        "for _ in range(10): torch.ones(12_000_000)\n"
        "print(faults() - before)\n"
    )
    usual, kept = (
        int(subprocess.run([sys.executable, "-c", program, how], capture_output=True, text=True, check=True).stdout)
        for how in ("usual", "kept")
    )
    assert kept < 0.3 * usual


def test_without_torchrun_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")  # a scheduler may set these two without torchrun
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert launched() == (0, 1) and not in_worker()
    assert (rank(), world(), all_gather("a"), broadcast("b")) == (0, 1, ["a"], "b")
    barrier()
    with rank_zero_first():
        pass
    leave_group()
    runtime = Runtime("cpu", threads=1)
    assert (runtime.rank, runtime.world, runtime.single_process().world, runtime.single_process().device) == (
        0,
        1,
        1,
        runtime.device,
    )


def test_a_process_of_torchrun_that_is_not_the_first_keeps_quiet(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path / "a")
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    as_rank(monkeypatch, 1, 2)
    assert launched() == (1, 2) and in_worker()
    again = Run(tmp_path / "a")
    again.record_env({"more": 1})
    again.log_message("what the first says too")
    with Progress("supernet", 2, run=again, every=0.0) as progress:
        progress.advance(loss=1.0)
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == before
    assert capsys.readouterr() == ("", "")
    as_rank(monkeypatch, 0, 2)
    assert not in_worker()
    again.log_message("once")
    assert capsys.readouterr().err == "once\n"


def test_one_process_of_torchrun_needs_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    as_rank(monkeypatch, 0, 1)
    assert Runtime("cpu").world == 1


@pytest.mark.parametrize(
    ("device", "cards", "words"),
    [
        ("cuda:1", 2, "auto, cpu or cuda with 4 processes; hint: use device=cuda"),
        ("cuda", 1, "a GPU for each of its 2 processes; this one has 1; hint: use torchrun --nproc-per-node 1"),
        ("auto", 1, "a GPU for each of its 2 processes"),
        ("mps", 0, "auto, cpu or cuda"),
    ],
)
def test_processes_without_a_device_each_are_refused(
    monkeypatch: pytest.MonkeyPatch, device: str, cards: int, words: str
) -> None:
    as_rank(monkeypatch, 1, 4, here=2)  # of two machines
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(SettingError, match=words):
        Runtime(device)


def _where(x: int) -> tuple[int, int]:
    return launched()


def test_a_job_is_none_of_torchruns_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    as_rank(monkeypatch, 0, 2)
    assert list(run_jobs(_where, [{"x": 0}, {"x": 1}], workers=2)) == [(0, 1), (0, 1)]


def _square(x: int, wait: float = 0.0) -> tuple[int, int, int, str]:
    time.sleep(wait)
    return x * x, os.getpid(), torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]


def _refuse(x: int) -> int:
    if x == 1:
        raise SettingError("retrain.lr", x, "something else", "mend it")
    time.sleep(60)
    return x


def test_jobs_keep_their_order_in_one_thread_processes() -> None:
    jobs = [{"x": x, "wait": 0.5 if x == 0 else 0.0} for x in range(4)]
    progress = Progress("jobs", 4)
    with progress:
        results = list(run_jobs(_square, jobs, workers=2, advance=progress.advance))
    assert [result[0] for result in results] == [0, 1, 4, 9]
    assert os.getpid() not in {result[1] for result in results}
    assert {result[2:] for result in results} == {(1, "1")}
    assert progress.done == 4


def test_one_worker_stays_in_this_process() -> None:
    assert [result[:2] for result in run_jobs(_square, [{"x": 3}, {"x": 4}], workers=1)] == [
        (9, os.getpid()),
        (16, os.getpid()),
    ]
    with pytest.raises(SettingError, match="workers=0"):
        list(run_jobs(_square, [], workers=0))


def test_an_error_in_a_job_is_raised_whole_and_ends_the_others() -> None:
    start = time.monotonic()
    with pytest.raises(SettingError) as caught:
        list(run_jobs(_refuse, [{"x": 1}, {"x": 0}], workers=2))
    assert (caught.value.field, caught.value.hint) == ("retrain.lr", "mend it")
    assert time.monotonic() - start < 40


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "jobs.py"
    script.write_text(
        "import os, time\n"
        "from nas_kd.runtime.jobs import run_jobs\n"
        "def job(path):\n"
        "    open(path, 'w').write(str(os.getpid()))\n"
        "    time.sleep(120)\n"
        "if __name__ == '__main__':\n"
        f"    list(run_jobs(job, [dict(path=r'{tmp_path}/' + str(n)) for n in range(2)]))\n"
    )
    env = os.environ | {"PYTHONPATH": str(Path(nas_kd.__file__).parents[1])}
    parent = subprocess.Popen([sys.executable, str(script)], env=env)
    files = [tmp_path / "0", tmp_path / "1"]
    _until(lambda: all(file.exists() and file.read_text() for file in files))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    workers = [int(file.read_text()) for file in files]
    _until(lambda: not any(_alive(pid) for pid in workers))


def _until(condition: object, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    if Path("/proc").is_dir():  # a zombie that nobody collects in a container has ended too
        return state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_progress_writes_lines_and_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path / "a")
    with Progress("supernet", 4, done=2, run=run, every=0.0) as progress:
        assert progress.eta_seconds is None
        progress.advance(loss=0.5)
        eta = progress.eta_seconds
        assert eta is not None and 0 <= eta < 5
        progress.advance(loss=0.25)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "supernet 2/4 epochs"
    assert lines[1].startswith("supernet 3/4 epochs  ETA ") and lines[1].endswith("loss=0.5")
    state = json.loads((run.path / "status.json").read_text())
    assert (state["stage"], state["done"], state["total"], state["last"]) == (
        "supernet",
        4,
        4,
        {"loss": 0.25},
    )


def test_progress_within_a_unit_and_among_stages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    run = Run(tmp_path / "a")
    run.place = Place(2, 5, seconds=30.0, later=60.0, began=100.0)
    with Progress("supernet", 4, done=1, run=run, every=0.0) as progress:
        for step in (3, 4, 5):  # two steps of the second epoch were done by another process
            clock[0] += 2.0
            progress.within(step, 10)
        # 3 steps of 10 an epoch in 6 s; 2.5 epochs are left
        assert progress.eta_seconds == pytest.approx(6.0 / 0.3 * 2.5)
        clock[0] += 10.0
        progress.advance(loss=1.0)
        assert progress.eta_seconds == pytest.approx(16.0 / 0.8 * 2)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "[2/5] supernet 1/4 epochs  all 1 min 30 s"
    assert lines[3] == "[2/5] supernet 1/4 epochs  ETA 50 s  all 1 min 50 s  step 5/10 2 s each"
    assert lines[4] == "[2/5] supernet 2/4 epochs  ETA 40 s  all 1 min 40 s  loss=1"
    state = json.loads((run.path / "status.json").read_text())
    assert (state["number"], state["stages"], state["total_eta_seconds"]) == (2, 5, pytest.approx(100.0))


def test_a_stage_that_takes_longer_than_planned_says_what_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 150.0)
    late = Place(2, 5, seconds=30.0, later=60.0, began=100.0)
    assert late.eta_seconds(None) is None and late.eta_seconds(45.0) == 105.0
    assert Place(2, 5, seconds=80.0, later=60.0, began=100.0).eta_seconds(None) == 90.0
    assert Place(2, 5).eta_seconds(45.0) is None


def test_a_line_a_minute_without_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    with Progress("search", 9) as progress:
        for _ in range(9):
            clock[0] += 21.0
            progress.advance()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines] == ["0/9", "3/9", "6/9", "9/9", "9/9"]


@pytest.mark.parametrize("title", ["supernet", "retrain/0123456789ab/seed_0"])
def test_a_bar_is_one_line_of_80_columns(title: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    shown = io.StringIO()
    shown.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", shown)
    with Progress(title, 30) as progress:
        progress.advance(loss=2.354, loss_largest=2.16, loss_others=0.06473, accuracy_largest=0.35)
        progress.within(41, 80)
    (line,) = {re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text) for text in shown.getvalue().splitlines() if "41/80" in text}
    assert len(line.strip("\r")) <= 80 and title in line and "1/30 epochs  ETA" in line


def test_progress_says_when_it_was_stopped(tmp_path: Path) -> None:
    run = Run(tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        with Progress("search", 4, run=run):
            raise KeyboardInterrupt
    assert json.loads((run.path / "status.json").read_text())["state"] == "stopped"
