"""Rare classes count as much as frequent ones: by the loss, or by being drawn as often."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

import nas_kd
from nas_kd.data import Data, load_data
from nas_kd.distill import Classification, MultiLabel, Regression, drawn, task_of
from nas_kd.distill.tasks import unscaled
from nas_kd.errors import SettingError


def make(balance: str = "none", y: Any = None) -> Data:
    generator = torch.Generator().manual_seed(0)
    classes = torch.arange(300).remainder(30).eq(0).long() + 2 * torch.arange(300).remainder(30).eq(1).long()
    y = classes if y is None else y
    x = torch.randint(0, 255, (300, 1, 8, 8), generator=generator).to(torch.uint8)
    return load_data((x, y), rate=0.2, select=0.2, views=2, pad=1, balance=balance)


RARE = make("sampler")


def test_classes_are_drawn_equally_often() -> None:
    sampled = drawn(RARE)
    counts = torch.zeros(3)
    for epoch in range(20):
        for batch in sampled.batches(16, epoch=epoch, seed=0, rank=0, world=1):
            counts += batch.y.bincount(minlength=3)
    n = float(counts.sum())
    # five standard deviations of a share of a third among n draws
    assert (counts / n - 1 / 3).abs().max() < 5 * (2 / 9 / n) ** 0.5
    assert float((RARE.train.labels == 0).double().mean()) > 0.9


def test_draws_are_of_seed_and_epoch_alone() -> None:
    def order(epoch: int, seed: int) -> torch.Tensor:
        batches = drawn(RARE).batches(16, epoch=epoch, seed=seed, rank=0, world=1)
        return torch.cat([batch.index for batch in batches])

    assert torch.equal(order(0, 0), order(0, 0)) and len(order(0, 0)) == 16 * RARE.train.steps(16)
    assert not torch.equal(order(0, 0), order(1, 0)) and not torch.equal(order(0, 0), order(0, 1))
    shares = [next(iter(drawn(RARE).batches(16, epoch=0, seed=0, rank=rank, world=2))) for rank in (0, 1)]
    assert torch.equal(torch.stack([share.index for share in shares], 1).flatten(), order(0, 0)[:16])


def test_weights_are_scikit_learns() -> None:
    data = make("class_weights")
    labels = data.train.labels.numpy()
    task = task_of(data)
    assert task.weights == pytest.approx(compute_class_weight("balanced", classes=np.arange(3), y=labels))
    assert drawn(data) is data.train
    columns = torch.stack([torch.arange(300) % 10 == 0, torch.arange(300) % 2 == 0], 1).long()
    several = make("class_weights", columns)
    weights = task_of(several).weights
    positive = several.train.labels.mean(0).double()
    assert weights == pytest.approx(((1 - positive) / positive).tolist())


def test_what_is_not_balanced_stays_as_it_was() -> None:
    data = make()
    assert task_of(data) == Classification(0.0) and drawn(data) is data.train
    assert "data.balance" not in data.augmentation and RARE.augmentation["data.balance"] == "sampler"
    assert data.fingerprint == RARE.fingerprint


def test_the_labels_choose_the_task() -> None:
    numbers = torch.randn(300, 2, generator=torch.Generator().manual_seed(1))
    assert task_of(make(y=numbers)) == Regression()
    assert task_of(make(y=(numbers > 0).long()), smoothing=0.1) == MultiLabel(0.1)
    assert task_of(make(), measure="macro_f1") == Classification(0.0, "macro_f1")
    for balance in ("class_weights", "sampler"):
        with pytest.raises(SettingError, match="balance"):
            task_of(make(balance, numbers))
    with pytest.raises(SettingError, match="class_weights"):
        task_of(make("sampler", (numbers > 0).long()))


def test_numbers_of_a_spread_far_from_one_are_named() -> None:
    numbers = torch.randn(300, 3, generator=torch.Generator().manual_seed(1)) * torch.tensor([1.0, 1000.0, 0.01])
    data = make(y=numbers)
    assert unscaled(data) == pytest.approx({"1": 1000.0, "2": 0.01}, rel=0.2)
    assert not unscaled(make())


@pytest.mark.parametrize("balance", ["class_weights", "sampler"])
def test_a_balanced_training_finds_the_rare_classes(balance: str) -> None:
    """Bright and dark images of 3 % each among grey ones: plain training answers grey for all."""
    y = torch.arange(600).remainder(30).clamp_max(2)
    x = torch.randint(0, 120, (600, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    x[y == 0, :, ::2] += 40
    x[y == 1, :, :, ::2] += 40
    recall = {}
    for how in ("none", balance):
        data = load_data((x.to(torch.uint8), y), rate=0.2, select=0.2, views=1, pad=0, flip=False, balance=how)
        space = nas_kd.load_space("digits")
        student = nas_kd.retrain(space.smallest(), None, data, space=space, epochs=4, batch_size=32, lr=0.05)
        recall[how] = student.info["metrics"]["test_balanced_accuracy"]
    assert recall[balance] > recall["none"] + 0.1


def test_a_method_that_draws_its_own_batches_is_refused() -> None:
    space = nas_kd.load_space("digits")
    with pytest.raises(SettingError, match="balance"):
        nas_kd.retrain(space.smallest(), None, RARE, space=space, method="cs_kd", epochs=1, batch_size=16)
