"""Two processes by torchrun against one: equal weights, one message of gradients a step, errors and no hangs."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
import torch
import two_ranks
from torch import Tensor

import nas_kd
from nas_kd.errors import SettingError
from nas_kd.runtime.device import Runtime
from nas_kd.runtime.reduce import check_same, mean_over_ranks, reduce_gradients

ROOT = Path(nas_kd.__file__).parents[1]


class Two(NamedTuple):
    """What two processes left, and one process for comparison."""

    folder: Path
    ranks: list[dict[str, Any]]
    alone: dict[str, Any]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Two:
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(Path(two_ranks.__file__)), str(folder)],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    alone = two_ranks.train(Runtime("cpu"), two_ranks.stage_in(folder / "alone"))
    return Two(folder, [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)], alone)


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def close(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for key, value in a.items():
        torch.testing.assert_close(value, b[key], rtol=1e-9, atol=1e-11, msg=lambda text, key=key: f"{key}: {text}")


def test_processes_know_their_places(two: Two) -> None:
    assert [found["place"] for found in two.ranks] == [(0, 2, "cpu"), (1, 2, "cpu")]
    assert [found["alone"] for found in two.ranks] == [(0, 1), (0, 1)]
    assert [found["parted"] for found in two.ranks] == [(0, 1, 1), (0, 1, 1)]  # and a new runtime joins nobody


@pytest.mark.parametrize("how", ["whole", "parts", "resumed", "first", "bestup"])
def test_all_processes_hold_the_same_weights(two: Two, how: str) -> None:
    a, b = (found[how].get("weights", found[how]) for found in two.ranks)
    assert equal(a, b)


@pytest.mark.parametrize("how", ["whole", "parts"])
def test_two_processes_equal_one_on_the_joined_batch(two: Two, how: str) -> None:
    start = two_ranks.supernet().double().state_dict()
    moved = [float((two.alone["weights"][key] - start[key]).abs().max()) for key in start]
    assert min(moved) > 1e-6  # every parameter was trained
    close(two.ranks[0][how]["weights"], two.alone["weights"])


def test_values_are_means_over_processes(two: Two) -> None:
    columns = ["epoch", "lr", "loss", "loss_largest", "loss_others"]
    frames = [pd.read_csv(two.folder / name / "supernet" / "metrics.csv") for name in ("alone", "0/whole")]
    assert [list(frame.columns) for frame in frames] == [columns, columns]
    pd.testing.assert_frame_equal(*frames, rtol=1e-9)


def test_a_step_sends_its_gradients_once(two: Two) -> None:
    messages, steps = two.ranks[0]["whole"]["messages"], len(two.alone["carried"])
    assert messages == two.ranks[1]["whole"]["messages"]
    # before the first step what there is of a checkpoint and a hash of the weights, then a hash and the gradients
    # of each step: those of the parameters that its archs used, and its three values
    assert messages[:2] == [("broadcast_object_list", 0), ("all_gather", 2)]
    carried = [[("all_gather", 2), ("all_reduce", numbers)] for numbers in two.alone["carried"]]
    assert messages[2:] == sum(carried, [])
    whole = sum(value.numel() for value in two.alone["weights"].values())
    assert max(two.alone["carried"]) <= whole + 4 and min(two.alone["carried"]) > whole / 4
    assert two.ranks[0]["parts"]["messages"][2:] == messages[2:]  # also where gradients are accumulated
    assert len(two.ranks[0]["parts"]["carried"]) == 2 * steps


def test_resumed_equals_not_resumed_to_the_bit(two: Two) -> None:
    for found in two.ranks:
        assert equal(found["resumed"]["weights"], found["whole"]["weights"])
        assert len(found["resumed"]["carried"]) == len(found["whole"]["carried"]) // 3 * 2  # the last two epochs
    whole, halved = (two.folder / "0" / name / "supernet" / "metrics.csv" for name in ("whole", "halved"))
    assert whole.read_bytes() == halved.read_bytes()


def test_the_first_process_alone_keeps_files(two: Two) -> None:
    kept = {"metrics.csv", "last.pt", "previous.pt", "stage.json"}
    assert {path.name for path in (two.folder / "0/whole/supernet").iterdir()} == kept
    assert {path.name for path in (two.folder / "1/whole/supernet").iterdir()} == {"stage.json"}  # the test's own
    assert (two.folder / "0/api/supernet/weights.safetensors").is_file()
    assert not (two.folder / "1/api").exists()


def test_a_finished_training_is_handed_to_all(two: Two) -> None:
    for found in two.ranks:
        assert equal(found["again"], two.ranks[0]["first"])
    assert len(pd.read_csv(two.folder / "0/api/supernet/metrics.csv")) == 2


def test_gradients_are_means_in_every_memory_order(two: Two) -> None:
    a, b = (found["mean"] for found in two.ranks)
    for index in range(4):
        mean = (a["own"][index] + b["own"][index]) / 2
        for found in (a, b):
            torch.testing.assert_close(found["mean"][index], mean, rtol=0, atol=1e-7)
    assert a["mean"][4] is None is b["mean"][4]
    for found in (a, b):
        assert found["values"][0] == 0.5 and math.isnan(found["values"][1])
    assert all(found["score"].tolist() == [1.5, 2.0] for found in two.ranks)


def test_differences_are_errors_on_every_process(two: Two) -> None:
    for rank, found in enumerate(two.ranks):
        own = f"rank {rank} (as ranks [{rank}] of 2) has {['one', 'another'][rank]!r}"
        assert found["archs"] == f"RuntimeError: ranks differ in archs; {own}"
        assert "ranks differ in the parameters that have a gradient" in found["gradients"]
        assert "ranks differ in the initial weights" in found["starts"]


def test_a_nan_of_one_process_ends_all_at_the_same_step(two: Two) -> None:
    steps = two_ranks.digits().train.steps(two_ranks.BATCH)
    message = f"FloatingPointError: supernet: other is nan in epoch 2, step 4 of {steps} (arch of step 3);"
    assert all(found["nan"].startswith(message) for found in two.ranks)
    assert "the checkpoint of epoch 1 is kept" in two.ranks[0]["nan"]
    state = two_ranks.stage_in(two.folder / "0/nan").load()
    assert state is not None and state["epoch"] == 1 and state["net"]["weight"].isfinite().all()


def test_a_signal_to_one_process_stops_all_after_the_same_step(two: Two) -> None:
    steps = two_ranks.digits().train.steps(two_ranks.BATCH)
    saved = f"supernet saved in epoch 2 after step 4 of {steps}"
    for found in two.ranks:
        assert found["asked"]["stopped"] == f"stopped by SIGTERM, {saved}; the same command continues from here"
        assert equal(found["went on"]["weights"], two.ranks[0]["whole"]["weights"])
    whole, asked = (two.folder / "0" / name / "supernet" / "metrics.csv" for name in ("whole", "asked"))
    assert whole.read_bytes() == asked.read_bytes()


def test_all_processes_skip_the_steps_that_are_bad_for_one(two: Two) -> None:
    for found in two.ranks:
        assert equal(found["skipped"]["weights"], two.ranks[0]["skipped"]["weights"])
        assert all(value.isfinite().all() for value in found["skipped"]["weights"].values())
    rows = pd.read_csv(two.folder / "0/skipped/supernet/skipped.csv")
    assert list(zip(rows["epoch"] - 1, rows["step"] - 1, strict=True)) == two_ranks.BAD
    assert set(rows["what"]) == {"loss"}
    assert not (two.folder / "1/skipped/supernet/skipped.csv").exists()


def test_each_process_draws_dropout_of_its_own(two: Two) -> None:
    a, b = (found["draws"] for found in two.ranks)
    assert len(a) == len(b) and not set(a) & set(b)
    assert a == two_ranks.draws(Runtime("cpu"))  # the first draws what one process alone draws


def test_one_process_sends_nothing() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([1.0, 2.0])
    with two_ranks.Messages() as messages:
        check_same("archs", "any")
        (value,) = reduce_gradients([parameter], [torch.tensor(3.0)])
        assert mean_over_ranks(value) is value
    assert value == 3.0 and parameter.grad.tolist() == [1.0, 2.0] and messages.sent == []


def test_a_batch_that_the_processes_cannot_share_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime("cpu")
    monkeypatch.setattr(Runtime, "world", property(lambda self: 2))
    with pytest.raises(SettingError, match=r"^supernet\.batch_size=25: .*a multiple of 2.*with 2 processes"):
        nas_kd.train_supernet(two_ranks.supernet(), two_ranks.digits(), batch_size=25, epochs=2, runtime=runtime)
