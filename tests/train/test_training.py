"""The training of a supernet: resume to the bit, what it teaches, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import nas_kd
from nas_kd.data import Batch, Data, load_data
from nas_kd.distill import Classification
from nas_kd.errors import SettingError
from nas_kd.runtime import Runtime
from nas_kd.supernet import Supernet
from nas_kd.train import supernet as training
from nas_kd.train.evaluate import evaluate_archs
from nas_kd.train.rules import Lesson, Sandwich
from nas_kd.train.supernet import train_supernet

TASK = Classification(smoothing=0.1)


@pytest.fixture(scope="module")
def data() -> Data:
    return load_data("digits", subset=400, rate=80)


def digits_net(data: Data) -> Supernet:
    torch.manual_seed(3)
    return Supernet(nas_kd.load_space("digits"), data.num_classes, data.in_chans)


def short(net: Supernet, data: Data, **changed: Any) -> Supernet:
    settings = {"epochs": 2, "batch_size": 64, "seed": 1, "runtime": Runtime("cpu"), "ema": 0.5, "dropout": 0.1}
    return train_supernet(net, data, **settings | changed)


def test_training_is_repeated_to_the_bit_and_resumed(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = short(digits_net(data), data, run=tmp_path / "whole")

    class Killed(Exception):
        pass

    calls, real = [0], Sandwich.lessons

    def killing(*arguments: Any) -> list[Lesson]:
        calls[0] += 1
        if calls[0] == data.train.steps(64) + 3:
            raise Killed
        return real(*arguments)

    monkeypatch.setattr(Sandwich, "lessons", killing)
    with pytest.raises(Killed):
        short(digits_net(data), data, run=tmp_path / "killed")
    monkeypatch.setattr(Sandwich, "lessons", real)
    again = short(digits_net(data), data, run=tmp_path / "killed")
    for key, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
    for file in ("metrics.csv", "weights.safetensors", "stage.json"):
        assert (tmp_path / "whole/supernet" / file).read_bytes() == (tmp_path / "killed/supernet" / file).read_bytes()

    # the finished stage is read, not trained, and refuses other settings by name
    monkeypatch.setattr(training, "fit", None)
    torch.manual_seed(99)
    read = short(Supernet(whole.space, data.num_classes, data.in_chans), data, run=tmp_path / "whole")
    assert all(torch.equal(value, read.state_dict()[key]) for key, value in whole.state_dict().items())
    with pytest.raises(SettingError, match=r"supernet\.lr"):
        short(digits_net(data), data, run=tmp_path / "whole", lr=0.2)


def test_training_teaches(data: Data, tmp_path: Path) -> None:
    net = short(digits_net(data), data, run=tmp_path, epochs=6, batch_size=16, random_subnets=1, ema=0.0, dropout=0.0)
    frame = pd.read_csv(tmp_path / "supernet" / "metrics.csv")
    assert {"loss", "loss_largest", "loss_others", "accuracy_largest", "accuracy_smallest"} <= set(frame.columns)
    assert frame["loss_largest"].iloc[-1] < 0.8 * frame["loss_largest"].iloc[0]
    space = net.space
    largest, middle, smallest = evaluate_archs(net, [space.largest(), space.sample(0), space.smallest()], data, TASK)
    assert largest > 0.5 and min(middle, smallest) > 0.3 and largest > smallest - 0.05  # chance is 0.1


def test_evaluation_is_of_the_calibrated_subnet(data: Data) -> None:
    net = digits_net(data).eval()
    arch = net.space.sample(2)
    (found,) = evaluate_archs(net, [arch], data, TASK, images=10, calibration=64, batch_size=16)
    assert not net.training
    (norm,) = nas_kd.calibrate(net, data.train.clean(16, limit=64), [arch])
    hits = [(net(b.x, arch, norm).argmax(1) == b.y) for b in data.rate.clean(16, limit=10)]
    assert found == pytest.approx(float(torch.cat(hits).float().mean()))


def test_a_teachers_targets_are_used(data: Data) -> None:
    asked = []

    def source(batch: Batch) -> Tensor:
        asked.append(len(batch.y))
        return F.one_hot(batch.y, 10).float() * 4

    net = short(digits_net(data), data, teacher=source, teacher_weight=0.5, epochs=1)
    assert asked == [64] * data.train.steps(64)
    alone = short(digits_net(data), data, teacher=source, teacher_weight=0.0, epochs=1)
    assert len(asked) == data.train.steps(64)  # not asked when it does not count
    assert not torch.equal(net.head.fc.weight, alone.head.fc.weight)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"epochs": 0}, r"supernet\.epochs"),
        ({"batch_size": 1}, r"supernet\.batch_size"),
        ({"batch_size": 10_000}, r"supernet\.batch_size"),
        ({"random_subnets": -1}, r"supernet\.random_subnets"),
        ({"reduction": "max"}, r"supernet\.reduction"),
        ({"teacher_weight": 0.5}, r"supernet\.teacher_weight"),
        ({"teacher_weight": 1.5}, r"supernet\.teacher_weight"),
        ({"divergence": "jss"}, r"supernet\.divergence"),
        ({"choose": "both"}, r"supernet\.choose"),
        ({"lr": 0.0}, r"supernet\.lr"),
        ({"schedule": "exponential"}, r"supernet\.final_lr"),
        ({"dropout": 1.0}, r"supernet\.dropout"),
        ({"drop_path": 1.0}, r"supernet\.drop_path"),
        ({"ema": -0.1}, r"supernet\.ema"),
        ({"momentum": 1.0}, r"supernet\.momentum"),
        ({"weight_decay": -1e-4}, r"supernet\.weight_decay"),
        ({"clip_grad": -1.0}, r"supernet\.clip_grad"),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_written(
    data: Data, tmp_path: Path, settings: dict[str, Any], field: str
) -> None:
    run = tmp_path / "run"
    with pytest.raises(SettingError, match=f"^{field}="):
        short(digits_net(data), data, run=run, **settings)
    assert not (run / "supernet").exists()
