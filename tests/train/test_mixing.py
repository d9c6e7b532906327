"""Optimisers and mixing are timm's own, on the same numbers; what cannot be trained is refused before it begins."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import timm.optim
import torch
from timm.data import Mixup
from torch import nn

from nas_kd.data import Batch
from nas_kd.distill import Distiller
from nas_kd.errors import SettingError
from nas_kd.train.config import RetrainConfig
from nas_kd.train.mixing import check_mixing, mixing
from nas_kd.train.optim import check_optimizer, optimizer_of


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3 * 36, 4))


NEW = {"muon"} & set(timm.optim.list_optimizers())  # newer than the lowest timm


@pytest.mark.parametrize("name", ["sgd", "momentum", "adamw", "lamb", "lion", "rmsproptf", *NEW])
def test_steps_are_timms(name: str) -> None:
    ours, theirs = network(), network()
    if "adamw_lr" in timm.optim.create_optimizer_v2(theirs, opt=name, lr=0.02).param_groups[0]:
        with pytest.raises(SettingError, match=r"optimizer='muon'.*follows the schedule.*pip install -U timm"):
            optimizer_of(name, [ours], lr=0.9, momentum=0.8, weight_decay=0.1)
        return
    torch.manual_seed(1)
    x = torch.randn(3, 5, 2, 8, 8)
    optimizers = (
        optimizer_of(name, [ours], lr=0.9, momentum=0.8, weight_decay=0.1),
        timm.optim.create_optimizer_v2(theirs, opt=name, lr=0.02, momentum=0.8, weight_decay=0.1),
    )
    for group in optimizers[0].param_groups:
        group["lr"] = 0.02  # as the loop does in every step
    for batch in x:
        for model, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            model(batch).square().mean().backward()
            optimizer.step()
    start = network().state_dict()
    for key, tensor in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], tensor, rtol=0, atol=0)
        assert not torch.equal(tensor, start[key])


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb"])
def test_norms_and_biases_are_not_decayed(name: str) -> None:
    decayed, plain = network(), network()
    for model, decay in ((decayed, 0.5), (plain, 0.0)):
        optimizer = optimizer_of(name, [model], lr=0.1, momentum=0.9, weight_decay=decay)
        for group in optimizer.param_groups:
            group["lr"] = 0.1
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 0.01)
        optimizer.step()
    moved = {key for key, p in decayed.named_parameters() if not torch.equal(p, dict(plain.named_parameters())[key])}
    assert moved == {"0.weight", "3.weight"}


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.2, 1.0)])
def test_mixing_is_timms_and_keeps_each_images_share(mixup: float, cutmix: float) -> None:
    generator = torch.Generator().manual_seed(0)
    mix = mixing(RetrainConfig(mixup=mixup, cutmix=cutmix), 5)
    theirs = Mixup(mixup, cutmix, label_smoothing=0.0, num_classes=5)
    seen = set()
    for seed in range(12):
        x, y = torch.rand(6, 2, 8, 8, generator=generator), torch.randint(5, (6,), generator=generator)
        batch = Batch(x.clone(), y, torch.arange(6), torch.full((6,), 3))
        np.random.seed(seed)
        mixed = mix(batch)
        np.random.seed(seed)
        wanted, labels = theirs(x.clone(), y)
        assert torch.equal(mixed.x, wanted) and torch.equal(mixed.y, labels)
        assert torch.equal(mixed.index, batch.index) and set(mixed.view.tolist()) == {-1}
        torch.testing.assert_close(mixed.y.sum(1), torch.ones(6))
        # the share of the label is that of the pixels: both are the same mean of an image and its partner
        marked = torch.stack([torch.full((2, 8, 8), float(number)) for number in range(6)])
        np.random.seed(seed)
        shown = mix(Batch(marked, torch.arange(6) % 5, torch.arange(6), torch.zeros(6))).x.mean((1, 2, 3))
        np.random.seed(seed)
        kept = mix(Batch(torch.zeros(6, 2, 8, 8), torch.tensor([0, 0, 0, 1, 1, 1]), mixed.index, mixed.view)).y[0, 0]
        torch.testing.assert_close(shown[0], (1 - kept) * 5.0, rtol=1e-4, atol=1e-4)
        seen.add(round(float(kept), 4))
    assert len(seen) > 4


def test_unmixed_batches_stay_what_they_are() -> None:
    batch = Batch(torch.rand(3, 1, 4, 4), torch.tensor([0, 1, 2]), torch.arange(3), torch.arange(3))
    assert mixing(RetrainConfig(), 3)(batch) is batch


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"optimizer": "adamm"}, "retrain.optimizer"),
        ({"optimizer": "adahessian"}, "retrain.optimizer"),  # of second derivatives, which no loop here has
        ({"schedule": "stairs"}, "retrain.schedule"),
        ({"milestones": [2]}, "retrain.milestones"),
        ({"schedule": "step", "milestones": []}, "retrain.milestones"),
        ({"schedule": "step", "milestones": [3, 2]}, "retrain.milestones"),
        ({"schedule": "step", "milestones": [2, 8]}, "retrain.milestones"),
        ({"schedule": "step", "milestones": [0]}, "retrain.milestones"),
        ({"schedule": "step", "milestones": [float("nan")]}, "retrain.milestones"),
        ({"factor": 1.0}, "retrain.factor"),
        ({"ema": 1.0}, "retrain.ema"),
        ({"mixup": -0.1}, "retrain.mixup"),
        ({"cutmix": float("inf")}, "retrain.cutmix"),
        ({"mixup": 0.2, "batch_size": 5}, "retrain.batch_size"),
        ({"mixup": 0.2, "unlabelled": True}, "retrain.mixup"),
    ],
)
def test_refusals(settings: dict[str, Any], field: str) -> None:
    settings = deepcopy(settings)
    unlabelled = settings.pop("unlabelled", False)
    with pytest.raises(SettingError) as caught:
        config = RetrainConfig(**{"epochs": 8, "batch_size": 4} | settings)
        if config.optimizer is not None:
            check_optimizer("retrain.optimizer", config.optimizer)
        check_mixing(config, Distiller("kd").recipe, unlabelled=unlabelled)
    assert caught.value.field == field and caught.value.expected


@pytest.mark.parametrize("method", ["dkd", "crd", "cs_kd", "virtual_teacher", "bss", "dfq", "mean_teacher", "byot"])
def test_methods_that_cannot_see_mixed_images(method: str) -> None:
    recipe = Distiller(method).recipe
    check_mixing(RetrainConfig(), recipe)
    with pytest.raises(SettingError, match=r"retrain\.cutmix=0\.5"):
        check_mixing(RetrainConfig(cutmix=0.5), recipe)


@pytest.mark.parametrize("method", ["ce", "label_smoothing", "kd", "kd_ls", "dist", "sp", "at", "vid"])
def test_methods_that_can(method: str) -> None:
    check_mixing(RetrainConfig(mixup=0.2, cutmix=1.0), Distiller(method).recipe)
