"""SIGINT, SIGTERM and a time limit end the step, save it and say how to go on; a second SIGINT stops at once."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from beside import RANK
from small_run import Made, changes, environment, numbers

from nas_kd.data import Data
from nas_kd.runtime.jobs import run_jobs
from nas_kd.runtime.stop import Stop, Stopped, time_limit
from nas_kd.train.loop import StepInfo
from tests.faults import trainings
from tests.faults.trainings import EPOCHS, INTERRUPT, STEPS, TERMINATE, few_images, send, stage_in, train

Fork = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def data() -> Data:
    return few_images()


def at(*moments: tuple[int, int], number: int = TERMINATE, times: int = 1) -> Callable[[StepInfo], None]:
    """Send this process a signal in some steps, once each."""
    left = list(moments)

    def before(info: StepInfo) -> None:
        if info[:2] in left:
            left.remove(info[:2])
            send(number, times)

    return before


def equal(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_training_stopped_after_every_step_ends_with_the_same_bits(data: Data, tmp_path: Path) -> None:
    whole = train(data, stage_in(tmp_path / "whole"))
    handlers = [signal.getsignal(number) for number in (INTERRUPT, TERMINATE)]
    moments = [(epoch, step) for epoch in range(EPOCHS) for step in range(STEPS)]
    for index, (epoch, step) in enumerate(moments):
        number, code = ((INTERRUPT, 130), (TERMINATE, 143))[index % 2]
        stage = stage_in(tmp_path / "stopped")
        with pytest.raises(Stopped) as caught:
            train(data, stage, at((epoch, step), number=number))
        assert caught.value.code == code and isinstance(caught.value, KeyboardInterrupt)
        name = signal.Signals(number).name
        saved = f"supernet saved in epoch {epoch + 1} after step {step + 1} of {STEPS}"
        assert str(caught.value) == f"stopped by {name}, {saved}; the same command continues from here"
        state = stage.load()
        assert state is not None and (state["epoch"], state["step"]) == (epoch, step + 1)
        assert [signal.getsignal(number) for number in (INTERRUPT, TERMINATE)] == handlers
    ended = train(data, stage_in(tmp_path / "stopped"))
    assert equal(whole, ended)
    files = [(tmp_path / name / "supernet/metrics.csv").read_bytes() for name in ("whole", "stopped")]
    assert files[0] == files[1]


def test_a_second_signal_stops_in_the_middle_of_the_step(data: Data, tmp_path: Path) -> None:
    stage, went_on = stage_in(tmp_path), []

    def before(info: StepInfo) -> None:
        if info[:2] == (1, 2):
            send(INTERRUPT, 2)
            went_on.append(info)

    with pytest.raises(Stopped):
        train(data, stage, before)
    state = stage.load()
    assert went_on == [] and state is not None and (state["epoch"], state["step"]) == (1, 0)


def test_a_signal_in_an_evaluation_saves_the_epoch_before_it(data: Data, tmp_path: Path) -> None:
    stage, seen = stage_in(tmp_path / "cut"), []

    def evaluate() -> dict[str, float]:
        seen.append(len(seen))
        if len(seen) == 2:
            send(TERMINATE)
            seen.append("went on")
        return {"weight": 1.0}

    with pytest.raises(Stopped, match="in epoch 2 after step 5 of 5"):
        train(data, stage, evaluate=evaluate)
    assert seen == [0, 1]
    cut = train(data, stage_in(tmp_path / "cut"), evaluate=evaluate)
    whole = train(data, stage_in(tmp_path / "whole"), evaluate=lambda: {"weight": 1.0})
    assert equal(cut, whole) and seen == [0, 1, 2, 3]
    assert list(stage.metrics.frame()["epoch"]) == [1, 2, 3]


def test_a_signal_after_the_last_step_lets_the_training_end(data: Data, tmp_path: Path) -> None:
    stage = stage_in(tmp_path)
    with pytest.raises(Stopped):
        train(data, stage, after_epoch=lambda epochs: send(TERMINATE) if epochs == EPOCHS else None)
    state = stage.load()
    assert state is not None and state["epoch"] == EPOCHS and len(stage.metrics.frame()) == EPOCHS


def test_handlers_of_the_user_come_back_and_ignored_signals_stay_so(data: Data) -> None:
    def mine(number: int, frame: object) -> None:
        raise AssertionError("the user's handler was called")

    before = {number: signal.getsignal(number) for number in (INTERRUPT, TERMINATE)}
    try:
        signal.signal(TERMINATE, mine)
        with pytest.raises(Stopped):
            train(data, None, at((0, 1)))
        assert signal.getsignal(TERMINATE) is mine
        signal.signal(TERMINATE, signal.SIG_IGN)  # as below nohup
        train(data, None, at((0, 1)))
        assert signal.getsignal(TERMINATE) is signal.SIG_IGN
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_thread_trains_without_signals(data: Data) -> None:
    done: list[object] = []
    thread = threading.Thread(target=lambda: done.append(train(data, None)))
    thread.start()
    thread.join()
    assert len(done) == 1


def test_a_time_limit_ends_a_training_and_is_no_signal(data: Data, tmp_path: Path) -> None:
    stage = stage_in(tmp_path)
    train(data, None, epochs=1)  # imports what an optimiser needs at its first step
    with pytest.raises(Stopped) as caught, time_limit(2 / 3600):
        train(data, stage, lambda info: time.sleep(0.05), epochs=1000)
    assert caught.value.timed_out and caught.value.code == 124
    assert str(caught.value).startswith("stopped by the time limit, supernet saved in epoch ")
    assert stage.load() is not None
    with time_limit(1):  # not reached: nothing is left of it
        pass
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


def test_what_was_asked_outside_counts_inside(data: Data) -> None:
    with pytest.raises(Stopped), Stop():
        send(TERMINATE)
        train(data, None, epochs=1000)


def test_workers_end_their_step_and_save_it(tmp_path: Path) -> None:
    """The process that waits for them is asked to stop; they are told by it."""
    folders = [tmp_path / str(number) for number in range(3)]
    for folder in folders:
        stage_in(folder)
    handler = signal.getsignal(TERMINATE)

    def ask() -> None:
        end = time.monotonic() + 120
        while not all((folder / "begun").exists() for folder in folders[:2]) and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.5)
        send(TERMINATE)

    threading.Thread(target=ask, daemon=True).start()
    with pytest.raises(Stopped) as caught:
        list(run_jobs(trainings.slow_job, [{"folder": str(folder)} for folder in folders], workers=2))
    assert caught.value.code == 143 and signal.getsignal(TERMINATE) is handler
    for folder in folders[:2]:
        state = stage_in(folder).load()
        assert state is not None and (state["step"] > 0 or state["epoch"] > 0)
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_time_limit_ends_the_wait_for_workers(tmp_path: Path) -> None:
    """Nothing but the signal of the limit wakes the process that waits; their training would last for minutes."""
    folders = [tmp_path / str(number) for number in range(2)]
    for folder in folders:
        stage_in(folder)
    with pytest.raises(Stopped) as caught, time_limit(5 / 3600):
        list(run_jobs(trainings.slow_job, [{"folder": str(folder)} for folder in folders], workers=2))
    assert caught.value.timed_out and caught.value.code == 124 and "time limit" in str(caught.value)
    assert not multiprocessing.active_children()


def waits(woken: list[bool]) -> None:
    """Wait as for a worker: in a lock, without a step that could look at a request; note whether that was cut short."""
    with ThreadPoolExecutor(1) as pool:
        end = threading.Event()
        future = pool.submit(lambda: woken.append(end.wait(20)))
        try:
            future.result()
        finally:
            end.set()


@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("inner", [False, True])
def test_a_time_limit_wakes_a_main_thread_that_waits(ignored: bool, inner: bool) -> None:
    before = signal.getsignal(TERMINATE)
    mine = signal.signal(TERMINATE, signal.SIG_IGN) if ignored else before
    own, woken = signal.getsignal(TERMINATE), list[bool]()
    try:
        with pytest.raises(Stopped) as caught, time_limit(0.5 / 3600):
            with Stop(at_once=True) if inner else nullcontext():
                waits(woken)
        assert woken == [True] and caught.value.timed_out and signal.getsignal(TERMINATE) is own
    finally:
        signal.signal(TERMINATE, mine)


@pytest.mark.parametrize("inner", [False, True])
def test_an_ignored_signal_stays_so_within_a_time_limit(inner: bool) -> None:
    before, went_on = signal.signal(TERMINATE, signal.SIG_IGN), []
    try:
        with time_limit(1), Stop(at_once=True) if inner else nullcontext():
            send(TERMINATE)
            went_on.append(True)
        assert went_on and signal.getsignal(TERMINATE) is signal.SIG_IGN
    finally:
        signal.signal(TERMINATE, before)


def test_the_end_of_the_time_does_not_tear_apart_what_is_stopping() -> None:
    """One signal has asked; that of the limit is no second one."""
    ended = []
    with pytest.raises(Stopped) as caught, time_limit(0.3 / 3600) as limit, Stop():
        send(TERMINATE)
        while not limit._timed_out:
            time.sleep(0.01)
        time.sleep(0.05)
        ended.append(True)
    assert ended and caught.value.number == TERMINATE


def test_a_time_that_ends_at_the_end_harms_nobody() -> None:
    """SIGTERM is left to the system there: a signal after the handlers have gone would end the process."""
    script = (
        "import time\n"
        "from nas_kd.runtime.stop import Stopped, time_limit\n"
        "for turn in range(1000):\n"
        "    try:\n"
        "        with time_limit(0.003 / 3600):\n"
        "            time.sleep(0.00297 + turn % 7 * 1e-5)\n"
        "    except Stopped as stop:\n"
        "        assert stop.timed_out\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True)
    assert ended.returncode == 0, (ended.returncode, ended.stderr)


def test_a_handler_taken_away_does_not_end_the_process() -> None:
    before, went_on = signal.getsignal(TERMINATE), []
    try:
        with pytest.raises(Stopped) as caught, time_limit(0.05 / 3600) as limit:
            signal.signal(TERMINATE, signal.SIG_DFL)
            while not limit._timed_out:
                time.sleep(0.01)
            went_on.append(True)
        assert went_on and caught.value.code == 124
    finally:
        signal.signal(TERMINATE, before)


def test_a_time_limit_outside_the_main_thread_is_refused() -> None:
    errors: list[RuntimeError] = []

    def limited() -> None:
        try:
            with time_limit(1):
                pass
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=limited)
    thread.start()
    thread.join()
    assert len(errors) == 1 and "main thread" in str(errors[0])


STEP = "nas_kd.train.loop.seeded"  # called once a step


def step(name: str, nth: int) -> dict[str, Any]:
    """Be hit at the nth step that this command takes of such a training."""
    return {"call": STEP, "path": f"^{name}$", "nth": nth}


def write(path: str, nth: int = 1) -> dict[str, Any]:
    """Be hit at the nth write of this file."""
    return {"path": f"{path}$", "nth": nth}


# a command, what comes in its way and where, and what is then saved; or what is there by then, and what is not
TUNED, SHORT, STUDENT = r"search/tuned/\w+", r"search/short/\w+", r"retrain/\w+/seed_0"
CUT: list[tuple[str, str, dict[str, Any], str | tuple[str, str]]] = [
    ("run", "term", step("teacher", 4), "teacher saved in epoch 1 after step 4"),
    ("teacher", "late", step("teacher", 7), "teacher saved in epoch 2 after step 1"),
    ("run", "int", step("supernet", 9), "supernet saved in epoch 1 after step 9"),
    ("supernet", "late", step("supernet", 5), "supernet saved in epoch 2 after step 4"),
    ("run", "term", step("blockwise", 4), "blockwise saved in epoch 1 after step 4"),
    ("blockwise", "late", write(r"blockwise/stage_2\.csv"), ("blockwise/stage_1.csv", "blockwise/stage_2.csv")),
    ("run", "int", write(r"search/front\.csv"), ("search/stage.json", "search/front.csv")),
    ("search", "late", write(r"search/trials\.csv", 6), ("search/trials.csv", "search/tuned")),
    ("run", "term", step("retrain", 4), f"{TUNED} saved in epoch 1 after step 4"),
    ("search", "late", step("retrain", 3), f"{TUNED} saved in epoch 1 after step 2"),
    ("run", "term", step("retrain", 7), f"{SHORT} saved in epoch 1 after step 4"),
    ("search", "late", step("retrain", 3), f"{SHORT} saved in epoch 1 after step 7"),
    ("run", "int", write(rf"{STUDENT}/metrics\.csv"), f"{STUDENT} saved in epoch 2 after step 1"),
    ("retrain", "late", step("retrain", 5), f"{STUDENT} saved in epoch 2 after step 6"),
    ("run", "late", write(r"report/report\.html"), ("retrain/results.csv", "report/report.html")),
    ("rank", "term", step("truth", 8), r"rank \w+_seed_0 saved in epoch 2 after step 3"),
    ("rank", "late", step("truth", 5), r"rank \w+_seed_0 saved in epoch 1 after step 3"),
]
# one moment of each kind of work, and every way to be stopped: the default suite goes through these
FEW = [
    *(CUT[at] for at in (0, 2, 5, 7, 8)),
    ("search", "late", step("retrain", 10), f"{SHORT} saved in epoch 1 after step 4"),
    *(CUT[at] for at in (12, 14, 15)),
]
CODES = {"int": (130, "SIGINT"), "term": (143, "SIGTERM"), "late": (124, "the time limit")}


@pytest.mark.timeout(900)  # seconds of work, but minutes on a machine that does other things
@pytest.mark.parametrize("cuts", [FEW, pytest.param(CUT, marks=pytest.mark.slow)], ids=["few", "all"])
def test_every_stage_stops_and_goes_on(cuts: list[Any], made: Made, tmp_path: Path, fork: Fork) -> None:
    """The time is up when its clock is told so, in the stage that is meant, on machines of any speed."""
    run = tmp_path / "run"
    for command, what, place, proof in cuts:
        options = RANK if command == "rank" else ()
        fault = place | {"what": what}
        code, text = fork(command, made.config, "--run", run, "--max_hours", "9", *options, fault=fault)
        (line,) = [line for line in text.splitlines() if line.startswith("nas-kd: stopped ")]
        saved = f", {proof} of [0-9]+" if isinstance(proof, str) else ""
        told = f"nas-kd: stopped by {CODES[what][1]}{saved}; the same command continues from here"
        assert code == CODES[what][0] and re.fullmatch(told, line) and "Traceback" not in text, (line, told)
        if isinstance(proof, str):
            assert json.loads((run / "status.json").read_text())["state"] == "stopped"
        else:
            assert [(run / name).exists() for name in proof] == [True, False], proof
    code, text = fork("rank", made.config, "--run", run, *RANK)
    assert code == 0 and len(pd.read_csv(run / "rank/truth.csv")) == 8, text
    shutil.rmtree(run / "rank")
    code, text = fork("run", made.config, "--run", run)
    assert code == 0, text
    assert changes(numbers(made.run), numbers(run)) == []
    assert not list(run.rglob("*.tmp")) and not list(run.rglob("previous.pt"))


def test_a_time_too_short_for_anything(made: Made, tmp_path: Path, fork: Fork) -> None:
    """Wherever it ends, the command says so."""
    code, text = fork("run", made.config, "--run", tmp_path / "run", "--max_hours", "0.0001")
    assert code == 124, text
    (line,) = [line for line in text.splitlines() if line.startswith("nas-kd: stopped ")]
    assert line.startswith("nas-kd: stopped by the time limit") and "Traceback" not in text


def test_a_real_command_is_terminated(made: Made, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nas_kd", "run", str(made.config), "--run", str(tmp_path / "run")]
    process = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    metrics, end = tmp_path / "run/teacher/metrics.csv", time.monotonic() + 200
    while not metrics.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    process.terminate()
    _, said = process.communicate(timeout=200)
    assert process.returncode == 143, said
    assert said.splitlines()[-1].startswith("nas-kd: stopped by SIGTERM") and "Traceback" not in said
    assert os.path.getsize(metrics) > 0


@pytest.mark.parametrize("hours", ["0", "-1", "nan", "inf", "a day"])
def test_hours_that_are_none(hours: str, made: Made, tmp_path: Path, nas_kd_main: Any) -> None:
    said = nas_kd_main("run", made.config, "--run", tmp_path / "run", "--max_hours", hours)
    assert said.code == 2 and "max_hours=" in said.err
