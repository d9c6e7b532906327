"""The training loop: resume to the bit, averaging, clipping, and what it says when a value is not finite."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd.data import Batch, Data
from nas_kd.errors import SettingError
from nas_kd.runs.stage import Stage
from nas_kd.runtime.stop import Stopped
from nas_kd.train import loop
from nas_kd.train.loop import StepInfo, _synchronises
from nas_kd.train.optim import Schedule, adamw, sgd
from nas_kd.train.plan import check_epochs
from tests.faults.trainings import few_images, fit_model, make_model, stage_in

EPOCHS, BATCH = 4, 16


@pytest.fixture(scope="module")
def data() -> Data:
    return few_images()


class Killed(Exception):
    """Stands for kill -9."""


def train(data: Data, stage: Stage | None, model: nn.Module | None = None, **changed: Any) -> nn.Module:
    model = make_model() if model is None else model
    make = changed.pop("optimizer", sgd)

    def step(batch: Batch, info: StepInfo) -> dict[str, Tensor]:
        loss = F.cross_entropy(model(batch.x), batch.y)
        loss.backward()
        return {"loss": loss.detach(), "first": batch.x.mean()}

    given = {"step": step, "optimizer": make([model]), "epochs": EPOCHS} | changed
    fit_model(given.pop("step"), model, data, stage, **given)
    return model


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


@pytest.mark.parametrize("optimizer", [sgd, adamw])
@pytest.mark.parametrize("when", ["after epoch 1", "before the checkpoint", "in a step", "in evaluation"])
def test_killed_and_resumed_ends_with_the_same_bits(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, optimizer: Any
) -> None:
    whole = stage_in(tmp_path / "whole")
    wanted = train(data, whole, optimizer=optimizer)

    halved = stage_in(tmp_path / "halved")
    model, calls = make_model(), [0]

    def killing(*_: Any) -> Any:
        calls[0] += 1
        if calls[0] == {"after epoch 1": 2, "before the checkpoint": 3, "in a step": 17, "in evaluation": 3}[when]:
            raise Killed
        return original(*_)

    changed: dict[str, Any] = {}
    if when == "after epoch 1":
        original = lambda epoch: None  # noqa: E731
        changed = {"after_epoch": killing}
    elif when == "before the checkpoint":
        original = halved.save
        monkeypatch.setattr(halved, "save", killing)
    elif when == "in evaluation":
        original = lambda: {"weight": float(model[6].weight.detach().square().sum())}  # noqa: E731
        changed = {"evaluate": killing}
    else:

        def original(batch: Batch, info: StepInfo) -> dict[str, Tensor]:
            loss = F.cross_entropy(model(batch.x), batch.y)
            loss.backward()
            return {"loss": loss.detach(), "first": batch.x.mean()}

        changed = {"step": killing}
    with pytest.raises(Killed):
        train(data, halved, model, optimizer=optimizer, **changed)

    torch.manual_seed(999)  # a new process: other generators, another initialisation
    again = make_model()
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.zero_()
    torch.manual_seed(777)
    resumed = stage_in(tmp_path / "halved")
    begun = resumed.load()
    assert begun is not None and 0 < begun["epoch"] < EPOCHS
    train(data, resumed, again, optimizer=optimizer)

    assert equal(again.state_dict(), wanted.state_dict())
    assert equal(resumed.load(), whole.load())
    csv = [(tmp_path / run / "supernet" / "metrics.csv").read_bytes() for run in ("whole", "halved")]
    assert csv[0] == csv[1] and csv[0].count(b"\n") == EPOCHS + 1


def test_a_finished_training_is_not_trained_again(data: Data, tmp_path: Path) -> None:
    wanted = train(data, stage_in(tmp_path))

    def never(*_: Any) -> Any:
        raise AssertionError("trained again")

    again = train(data, stage_in(tmp_path), make_model(), step=never)
    assert equal(again.state_dict(), wanted.state_dict())


def test_files_do_not_change_the_result(data: Data, tmp_path: Path) -> None:
    with_files, without = train(data, stage_in(tmp_path)), train(data, None)
    assert equal(with_files.state_dict(), without.state_dict())
    assert not equal(without.state_dict(), train(data, None, seed=6).state_dict())


def test_metrics_have_one_row_an_epoch(data: Data, tmp_path: Path) -> None:
    stage = stage_in(tmp_path)
    train(data, stage)
    frame = stage.metrics.frame()
    assert list(frame.columns) == ["epoch", "lr", "loss", "first", "weight"]
    assert list(frame["epoch"]) == [1, 2, 3, 4]
    steps = data.train.steps(BATCH)
    for row, epoch in zip(frame.itertuples(), range(EPOCHS), strict=True):
        # the mean over the very batches that the split hands out
        means = [batch.x.mean() for batch in data.train.batches(BATCH, epoch=epoch, seed=5)]
        assert row.first == pytest.approx(float(sum(means)) / steps, abs=1e-6)
        assert row.lr == Schedule(0.1, 1.0).at(epoch * steps + steps - 1, steps, EPOCHS)
    assert frame["loss"].iloc[-1] < frame["loss"].iloc[0]
    assert "supernet" in (tmp_path / "timing.csv").read_text()


def test_moments_and_rates_of_the_steps(data: Data) -> None:
    model, seen, steps = nn.Linear(64, 3), [], data.train.steps(BATCH)
    optimizer = sgd([model])

    def step(batch: Batch, info: StepInfo) -> dict[str, Tensor]:
        loss = F.cross_entropy(model(batch.x.flatten(1)), batch.y)
        assert all(p.grad is None for p in model.parameters())  # gradients are cleared
        loss.backward()
        seen.append((info, {group["lr"] for group in optimizer.param_groups}))
        return {"loss": loss}

    train(data, None, model, step=step, optimizer=lambda _: optimizer, ema=0.0, evaluate=None, epochs=2)
    assert len(seen) == 2 * steps
    for number, (info, rates) in enumerate(seen):
        assert info == (number // steps, number % steps, number / (2 * steps))
        assert rates == {Schedule(0.1, 1.0).at(number, steps, 2)}


def test_averaged_weights_by_hand(data: Data) -> None:
    model, path = make_model(), []

    def record(batch: Batch, info: StepInfo) -> dict[str, Tensor]:
        if info.epoch or info.step:
            path.append(copy.deepcopy(model.state_dict()))  # weights after the step before
        loss = F.cross_entropy(model(batch.x), batch.y)
        loss.backward()
        return {"loss": loss.detach()}

    final: dict[str, Tensor] = {}
    averaged = train(
        data,
        None,
        model,
        step=record,
        ema=0.9,
        epochs=2,
        clip=0.0,
        after_epoch=lambda epoch: final.update(copy.deepcopy(model.state_dict())),
    ).state_dict()
    path.append(final)
    for key, value in averaged.items():
        if value.is_floating_point():
            by_hand = path[0][key]
            for weights in path[1:]:
                by_hand = 0.9 * by_hand + 0.1 * weights[key]
            torch.testing.assert_close(value, by_hand)
    assert not torch.equal(averaged["6.weight"], final["6.weight"])


def test_gradients_are_clipped_by_value(data: Data) -> None:
    model = nn.Linear(64, 3)

    class Watching(torch.optim.SGD):
        largest: list[float] = []

        def step(self, closure: Any = None) -> None:
            self.largest.append(max(float(p.grad.abs().max()) for p in model.parameters()))
            super().step()

    def step(batch: Batch, info: StepInfo) -> dict[str, Tensor]:
        loss = 100 * F.cross_entropy(model(batch.x.flatten(1)), batch.y)
        loss.backward()
        return {"loss": loss}

    watching = Watching(model.parameters(), lr=0.0)
    same = {"step": step, "optimizer": lambda _: watching, "ema": 0.0, "evaluate": None, "epochs": 1}
    train(data, None, model, clip=0.25, **same)
    assert set(Watching.largest) == {0.25}
    Watching.largest.clear()
    train(data, None, model, clip=0.0, **same)
    assert min(Watching.largest) > 0.25


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_named_and_not_saved(data: Data, tmp_path: Path, bad: float) -> None:
    model, stage = make_model(), stage_in(tmp_path)
    before: dict[str, Tensor] = {}

    def step(batch: Batch, info: StepInfo) -> dict[str, Tensor]:
        loss = F.cross_entropy(model(batch.x), batch.y)
        loss.backward()
        hit = info.epoch == 2 and info.step == 1
        if hit:
            before.update({key: value.clone() for key, value in model.named_parameters()})
        return {"loss": loss.detach(), "loss_others": torch.tensor(bad if hit else 1.0)}

    def describe(info: StepInfo) -> str:
        return f"archs of {info.epoch}/{info.step} at {info.progress:.3f}"

    message = (
        r"^supernet: loss_others is (nan|inf) in epoch 3, step 2 of 5 \(archs of 2/1 at 0\.550\); the checkpoint of"
        r" epoch 2 is kept; lower supernet\.lr \(now 0\.0655\), or skip such steps with on_nan=skip$"
    )
    with pytest.raises(FloatingPointError, match=message):
        train(data, stage, model, step=step, describe=describe)
    state = stage.load()
    assert state is not None and state["epoch"] == 2
    assert list(stage.metrics.frame()["epoch"]) == [1, 2]
    assert equal(dict(model.named_parameters()), before)  # the step was not taken


def test_weights_that_are_not_finite_are_not_saved(data: Data, tmp_path: Path) -> None:
    model, stage = make_model(), stage_in(tmp_path)

    def step(batch: Batch, info: StepInfo) -> dict[str, Tensor]:
        loss = F.cross_entropy(model(batch.x), batch.y)
        loss.backward()
        if info.epoch == 1 and info.step == 4:  # the epoch's last: no later loss would tell
            model[6].weight.grad[0, 0] = float("nan")
        return {"loss": loss.detach()}

    message = r"^supernet: weights are not finite after epoch 2; the checkpoint of epoch 1 is kept; lower supernet\.lr"
    with pytest.raises(FloatingPointError, match=message):
        train(data, stage, model, step=step)
    state = stage.load()
    assert state is not None and state["epoch"] == 1 and all(v.isfinite().all() for v in state["net"].values())
    assert list(stage.metrics.frame()["epoch"]) == [1]


def test_a_first_epoch_that_diverges_promises_no_checkpoint(data: Data, tmp_path: Path) -> None:
    def step(batch: Batch, info: StepInfo) -> dict[str, Tensor]:
        return {"loss": torch.tensor(float("-inf"))}

    for stage in (stage_in(tmp_path), None):
        with pytest.raises(FloatingPointError, match="step 1 of 5; no weight was changed before"):
            train(data, stage, step=step)


def gradients_of(data: Data, accumulate: int) -> tuple[list[list[Tensor]], list[int]]:
    """Train in float64 with norms in evaluation mode; return each optimiser step's gradients and the parts' sizes."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(6)
    model = nn.Sequential(nn.Conv2d(1, 6, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(216, 3)).double()
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.5, 2.0)
    grads: list[list[Tensor]] = []
    sizes: list[int] = []

    class Watching(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            grads.append([p.grad.clone() for p in model.parameters()])
            super().step()

    def step(batch: Batch, info: StepInfo) -> dict[str, Tensor]:
        norm.eval()
        sizes.append(len(batch.y))
        loss = F.cross_entropy(model(batch.x.double()), batch.y)
        loss.backward()
        return {"loss": loss}

    train(
        data,
        None,
        model,
        step=step,
        epochs=2,
        clip=0.0,
        ema=0.0,
        evaluate=None,
        accumulate=accumulate,
        optimizer=lambda _: Watching(model.parameters(), lr=0.0),
    )
    return grads, sizes


def test_accumulated_gradients_are_the_whole_batchs(data: Data) -> None:
    whole, sizes = gradients_of(data, 1)
    assert sizes == [16] * 10 and not torch.equal(whole[0][0], whole[-1][0])
    for accumulate in (2, 8):
        grads, sizes = gradients_of(data, accumulate)
        assert sizes == [16 // accumulate] * 10 * accumulate and len(grads) == 10
        for a, b in zip(whole, grads, strict=True):
            torch.testing.assert_close(b, a, rtol=1e-11, atol=1e-13)


def test_accumulated_values_are_means(data: Data, tmp_path: Path) -> None:
    def first(accumulate: int) -> list[float]:
        stage, model = stage_in(tmp_path / str(accumulate)), nn.Linear(64, 3)

        def step(batch: Batch, info: StepInfo) -> dict[str, Tensor]:
            loss = F.cross_entropy(model(batch.x.flatten(1)), batch.y)
            loss.backward()
            return {"loss": loss, "first": batch.x.mean()}

        train(data, stage, model, step=step, accumulate=accumulate, ema=0.0, evaluate=None)
        return list(stage.metrics.frame()["first"])

    assert first(4) == pytest.approx(first(1), rel=1e-6)


def test_mode_is_training_in_every_epoch(data: Data) -> None:
    model, modes = make_model(), []

    def step(batch: Batch, info: StepInfo) -> dict[str, Tensor]:
        modes.append(model.training)
        loss = F.cross_entropy(model(batch.x), batch.y)
        loss.backward()
        return {"loss": loss.detach()}

    def evaluate() -> dict[str, float]:
        model.eval()
        return {}

    train(data, None, model, step=step, evaluate=evaluate)
    assert all(modes)


@pytest.mark.parametrize(
    ("epochs", "batch", "field"),
    [(0, 16, "epochs"), (-1, 16, "epochs"), (1, 0, "batch_size"), (1, 10_000, "batch_size")],
)
def test_no_time_or_no_images_is_refused(data: Data, epochs: int, batch: int, field: str) -> None:
    with pytest.raises(SettingError, match=f"^retrain.{field}="):
        check_epochs("retrain", epochs, batch, data.train)


@pytest.mark.parametrize(
    ("batch", "accumulate", "world", "field", "words"),
    [
        (15, 1, 2, "batch_size", r"a multiple of 2, at least 4, with 2 processes; hint: use retrain.batch_size=16"),
        (2, 1, 2, "batch_size", r"at least 4, with 2 processes; hint: use retrain.batch_size=4"),
        (18, 4, 1, "batch_size", r"a multiple of 4, at least 8, with retrain.accumulate=4; hint: .*=16"),
        (18, 2, 2, "batch_size", r"with 2 processes and retrain.accumulate=2; hint: .*=16"),
        (16, 0, 1, "accumulate", "at least 1"),
    ],
)
def test_a_batch_that_cannot_be_shared_is_refused(
    data: Data, batch: int, accumulate: int, world: int, field: str, words: str
) -> None:
    with pytest.raises(SettingError, match=rf"^retrain.{field}=\d+: .*{words}"):
        check_epochs("retrain", 1, batch, data.train, accumulate, world)
    check_epochs("retrain", 1, 16, data.train, 4, 2)


def test_the_loop_refuses_before_a_step(data: Data) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("trained")

    for changed in ({"batch_size": 18, "accumulate": 4}, {"epochs": 0}):
        with pytest.raises(SettingError, match="^supernet"):
            train(data, None, step=never, **changed)


@pytest.mark.parametrize(
    ("steps", "sync_every", "looks"), [(3, 50, [2]), (4, 1, [0, 1, 2, 3]), (5, 2, [1, 3, 4]), (6, 3, [2, 5])]
)
def test_a_request_is_synchronises_at_in_every_epoch(steps: int, sync_every: int, looks: list[int]) -> None:
    """Several processes on GPUs are told here alone, also where an epoch is shorter than the wait."""
    assert [index for index in range(steps) if _synchronises(index, steps, sync_every)] == looks


def test_a_short_epoch_on_gpus_ends_when_another_process_is_asked(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, real = stage_in(tmp_path), loop._gradients
    monkeypatch.setattr(loop, "_gradients", lambda *rest: (real(*rest)[0], torch.tensor(0.5)))
    monkeypatch.setattr(
        loop, "_synchronises", lambda index, steps, sync_every: _synchronises(index, steps, loop.SYNC_EVERY)
    )
    with pytest.raises(Stopped):
        train(data, stage)
    state = stage.load()
    assert state is not None and (state["epoch"], state["step"]) == (0, 5)
