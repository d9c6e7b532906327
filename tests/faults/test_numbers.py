"""NaN and infinity stop a training with all that is known of them, or are skipped and counted."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from small_run import Made
from torch import Tensor, nn

import nas_kd
from nas_kd.data import Batch, Data
from nas_kd.distill import Term
from nas_kd.errors import SettingError
from nas_kd.runtime.device import Runtime
from nas_kd.runtime.stop import Stopped
from nas_kd.train import blockwise
from nas_kd.train.loop import StepInfo, fit
from nas_kd.train.optim import Schedule, sgd
from nas_kd.train.plan import Plan
from tests.faults.trainings import EPOCHS, STEPS, TERMINATE, few_images, send, stage_in, train

SKIP = Runtime("cpu", on_nan="skip")
BAD = [(0, 1), (1, 3), (1, 4)]


@pytest.fixture(scope="module")
def data() -> Data:
    return few_images()


def spoiled(*moments: tuple[int, int], value: float = float("nan")) -> Any:
    """Spoil the loss of some steps; two parts a step share its step."""

    def spoil(info: StepInfo, batch: Batch, loss: Tensor) -> Tensor:
        return loss * value if info[:2] in moments else loss

    return spoil


def test_skipped_steps_are_as_if_they_had_never_been(data: Data, tmp_path: Path) -> None:
    """The same training by hand, which leaves those steps out, ends with the same bits."""
    stage = stage_in(tmp_path / "skip")
    model = train(data, stage, spoil=spoiled(*BAD), runtime=SKIP)
    seen: list[Any] = []

    class Leaving(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            info = divmod(len(seen), STEPS)
            seen.append(info)
            if info not in BAD:
                super().step()

    from tests.faults import trainings

    def fresh(modules: Any) -> Leaving:
        return Leaving(modules[0].parameters(), lr=0.1, momentum=0.9, nesterov=True)

    # without an average of the weights and statistics, which the optimiser has no say in
    plain = {"ema": 0.0, "evaluate": None}
    kept, trainings.sgd = trainings.sgd, fresh  # type: ignore[assignment]
    try:
        left = train(data, None, **plain)
        seen = [None] * 10_000  # the other leaves none out by itself
        skipped = train(data, None, spoil=spoiled(*BAD), runtime=SKIP, **plain)
    finally:
        trainings.sgd = kept
    for (name, a), b in zip(left.named_parameters(), skipped.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert all(value.isfinite().all() for value in model.state_dict().values())
    rows = stage.log("skipped.csv").frame()
    assert list(zip(rows["epoch"] - 1, rows["step"] - 1, strict=True)) == BAD
    assert set(rows["what"]) == {"loss"} and rows["value"].isna().all()
    means = pd.read_csv(stage.folder / "metrics.csv")
    assert means["loss"].notna().all() and list(means["epoch"]) == [1, 2, 3]


def test_statistics_of_a_skipped_step_are_put_back(data: Data) -> None:
    """Images of NaN spoil running statistics in the forward pass, for ever."""

    def poison(batch: Batch, info: StepInfo) -> None:
        if info[:2] in BAD:
            batch.x[:] = float("nan")

    from nas_kd.train import loop

    real = loop._gradients

    def gradients(step: Any, batches: Any, info: StepInfo, *rest: Any) -> Any:
        for batch in batches:
            poison(batch, info)
        return real(step, batches, info, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_gradients", gradients)
        model = train(data, None, runtime=SKIP)
    assert all(value.isfinite().all() for value in model.state_dict().values())


class Mean(nn.Module):
    """A running mean of a network's weights: parameters that a step moves, and no gradient."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        for mean, now in zip(self.network.parameters(), network.parameters(), strict=True):
            mean.lerp_(now, 0.5)


def test_a_running_mean_of_weights_is_put_back(data: Data) -> None:
    """By hand: the mean of the weights before the steps that were taken."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    mean = Mean(model)
    expected = [p.detach().clone() for p in model.parameters()]

    def step(batch: Batch, info: StepInfo) -> dict[str, Tensor]:
        bad = info[:2] in BAD
        if not bad:
            for wanted, now in zip(expected, model.parameters(), strict=True):
                wanted.lerp_(now.detach(), 0.5)
        mean.update(model)
        if bad:  # as what a spoiled network leaves in it
            next(mean.network.parameters()).fill_(float("nan"))
        loss = F.cross_entropy(model(batch.x), batch.y) * (float("nan") if bad else 1.0)
        loss.backward()
        return {"loss": loss.detach()}

    fit(
        step,
        Plan(Schedule(0.1, 1.0), EPOCHS, 16),
        name="supernet",
        modules={"net": model, "mean": mean},
        optimizer=sgd([model]),
        split=data.train,
        seed=5,
        runtime=SKIP,
    )
    for found, wanted in zip(mean.network.parameters(), expected, strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("method", ["gan_kd", "dfq"])
def test_methods_with_optimisers_of_their_own_are_not_skipped(method: str, made: Made) -> None:
    digits, space = nas_kd.load_data("digits", subset=250, rate=0.1, select=0.1), nas_kd.load_space("digits")
    checkpoint = str(made.run / "teacher/weights.safetensors")
    teacher = nas_kd.load_teacher("cifar_resnet8", checkpoint=checkpoint, num_classes=10, in_chans=1)
    with pytest.raises(SettingError, match="on_nan='skip'.*use on_nan=stop"):
        nas_kd.retrain(
            space.sample(seed=1),
            teacher,
            digits,
            space=space,
            method=method,
            epochs=1,
            batch_size=32,
            warmup_epochs=0.0,
            runtime=SKIP,
        )


def test_a_gradient_that_is_not_finite_is_skipped_too(data: Data, tmp_path: Path) -> None:
    class Root(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return gradient * float("inf")

    def spoil(info: StepInfo, batch: Batch, loss: Tensor) -> Tensor:
        return Root.apply(loss) if info[:2] == (1, 2) else loss

    stage = stage_in(tmp_path)
    model = train(data, stage, spoil=spoil, runtime=SKIP)
    rows = stage.log("skipped.csv").rows()
    assert [(row["epoch"], row["step"], row["what"]) for row in rows] == [("2", "3", "gradient")]
    assert all(value.isfinite().all() for value in model.state_dict().values())
    with pytest.raises(FloatingPointError, match="supernet: "):
        train(data, stage_in(tmp_path / "stop"), spoil=spoil)


def test_a_stop_among_skipped_steps_forgets_none_and_counts_none_twice(data: Data, tmp_path: Path) -> None:
    whole = train(data, stage_in(tmp_path / "whole"), spoil=spoiled(*BAD), runtime=SKIP)
    for cut in ((0, 1), (1, 3)):
        asked = [cut]

        def before(info: StepInfo, asked: list[Any] = asked) -> None:
            if asked and info[:2] == asked[0]:
                asked.pop()
                send(TERMINATE)

        with pytest.raises(Stopped):
            train(data, stage_in(tmp_path / "cut"), before, spoiled(*BAD), runtime=SKIP)
    # and a kill: the rows after the checkpoint are done again
    with pytest.raises(ZeroDivisionError):
        stage = stage_in(tmp_path / "cut")
        train(data, stage, lambda info: 1 / (info.epoch < 2), spoiled(*BAD), runtime=SKIP)
    ended = train(data, stage_in(tmp_path / "cut"), spoil=spoiled(*BAD), runtime=SKIP)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, ended.state_dict()[name]), name
    for name in ("metrics.csv", "skipped.csv"):
        assert (tmp_path / "whole/supernet" / name).read_bytes() == (tmp_path / "cut/supernet" / name).read_bytes()


def test_an_epoch_of_nothing_but_bad_steps_is_an_error(data: Data, tmp_path: Path) -> None:
    stage, epoch = stage_in(tmp_path), [(1, step) for step in range(STEPS)]
    with pytest.raises(FloatingPointError, match="all steps of epoch 2 were skipped; the checkpoint of epoch 1 is"):
        train(data, stage, spoil=spoiled(*epoch), runtime=SKIP)
    state = stage.load()
    assert state is not None and state["epoch"] == 1


def test_what_was_stopped_goes_on_with_skip(data: Data, tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match="or skip such steps with on_nan=skip"):
        train(data, stage_in(tmp_path), spoil=spoiled(*BAD[1:]))
    train(data, stage_in(tmp_path), spoil=spoiled(*BAD[1:]), runtime=SKIP)
    assert len(stage_in(tmp_path).log("skipped.csv").rows()) == 2
    assert len(stage_in(tmp_path).metrics.rows()) == EPOCHS


def test_a_stop_does_not_save_weights_that_are_not_finite(data: Data, tmp_path: Path) -> None:
    """The step after which it is asked has a finite loss, and weights that are not."""

    def before(info: StepInfo) -> None:
        if info[:2] == (1, 2):
            send(TERMINATE)

    class Spoiling(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            super().step()
            self.count = getattr(self, "count", 0) + 1
            if self.count == STEPS + 3:
                with torch.no_grad():
                    self.param_groups[0]["params"][0][0] = float("inf")

    from tests.faults import trainings

    kept, stage = trainings.sgd, stage_in(tmp_path)
    trainings.sgd = lambda modules: Spoiling(modules[0].parameters(), lr=0.1)  # type: ignore[assignment]
    try:
        with pytest.raises(FloatingPointError, match="weights are not finite after epoch 2, step 3 of 5"):
            train(data, stage, before, accumulate=1)
    finally:
        trainings.sgd = kept
    state = stage.load()
    assert state is not None and (state["epoch"], state["step"]) == (1, 0)


def test_blockwise_names_stage_step_paths_and_term(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = nas_kd.load_data("digits", subset=250, rate=0.1, select=0.1, views=2)
    space = nas_kd.load_space("digits")
    net = nas_kd.Supernet(space, num_classes=10, in_chans=1)
    checkpoint = str(made.run / "teacher/weights.safetensors")
    teacher = nas_kd.load_teacher("cifar_resnet8", checkpoint=checkpoint, num_classes=10, in_chans=1)
    real, calls = blockwise.Blockwise.loss, []

    def loss(self: Any, index: int, *rest: Any) -> Tensor:
        calls.append(index)
        found = real(self, index, *rest)
        return found * float("nan") if index == 1 and calls.count(1) == 3 else found

    monkeypatch.setattr(blockwise.Blockwise, "loss", loss)
    settings = {"epochs": 1, "batch_size": 32, "calibration_images": 32, "runtime": Runtime("cpu")}
    match = r"^blockwise: loss_stage_2 is nan in epoch 1, step 3 of \d+ \(stage 1: .*, stage 2: .*w\d+.*\); lower"
    with pytest.raises(FloatingPointError, match=match):
        nas_kd.rate_blockwise(net, teacher, digits, **settings)


def test_a_student_is_named_with_its_term(tmp_path: Path) -> None:
    digits, space = nas_kd.load_data("digits", subset=250, rate=0.1, select=0.1), nas_kd.load_space("digits")
    arch = space.sample(seed=1)
    broken = Term("broken", lambda s, y: s.sum() * float("nan"), needs=frozenset({"logits", "labels"}), side="student")
    match = rf"^retrain/{arch.key}/seed_0: broken is nan in epoch 1, step 1 of \d+; no weight was changed before: "
    with pytest.raises(FloatingPointError, match=match):
        nas_kd.retrain(
            arch,
            None,
            digits,
            space=space,
            run=tmp_path,
            method=[("ce", 1.0), broken],
            epochs=1,
            batch_size=32,
            warmup_epochs=0.0,
            runtime=Runtime("cpu"),
        )


def test_the_setting_has_two_words(made: Made, tmp_path: Path, nas_kd_main: Any) -> None:
    said = nas_kd_main("run", made.config, "--run", tmp_path / "run", "--on_nan", "skipp")
    assert said.code == 2 and "on_nan='skipp'" in said.err and "did you mean 'skip'?" in said.err
