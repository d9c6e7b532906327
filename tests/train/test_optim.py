"""Weight-decay groups and the learning rate against their formulas."""

from __future__ import annotations

import math

import pytest
import torch

import nas_kd
from nas_kd.errors import SettingError
from nas_kd.train.optim import Schedule, adamw, decay_groups, sgd


@pytest.mark.parametrize("name", ["digits", "mobilenet_cifar"])
def test_norms_and_biases_are_not_decayed(name: str) -> None:
    net = nas_kd.Supernet(nas_kd.load_space(name))
    extra = torch.nn.Linear(3, 2)
    extra.weight.requires_grad_(False)
    decayed, free = decay_groups([net, extra], 0.25)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.25, 0.0)
    names = {id(p): key for key, p in [*net.named_parameters(), *extra.named_parameters()]}
    weights = {names[id(p)] for p in decayed["params"]}
    rest = {names[id(p)] for p in free["params"]}
    assert not weights & rest and weights | rest == {key for key, _ in net.named_parameters()} | {"bias"}
    assert all(key.endswith(".weight") and "bn" not in key for key in weights)
    assert all(key.endswith("bias") or "bn" in key for key in rest)
    assert id(extra.weight) not in {id(p) for p in (*decayed["params"], *free["params"])}


def test_decay_moves_weights_only() -> None:
    torch.manual_seed(0)
    for make in (lambda m: sgd([m], weight_decay=0.1), lambda m: adamw([m], weight_decay=0.1)):
        model = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
        before = {key: p.detach().clone() for key, p in model.named_parameters()}
        optimizer = make(model)
        for group in optimizer.param_groups:
            assert group["lr"] == 0.0  # the loop sets it
            group["lr"] = 0.5
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        moved = {key for key, p in model.named_parameters() if not torch.equal(p, before[key])}
        assert moved == {"0.weight"}


def test_momentum_is_nesterovs() -> None:
    (group, _) = sgd([torch.nn.Linear(2, 2)]).param_groups
    assert group["nesterov"] and group["momentum"] == 0.9
    (group, _) = sgd([torch.nn.Linear(2, 2)], momentum=0.0).param_groups
    assert not group["nesterov"]


@pytest.mark.parametrize("warmup", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("final", [0.0, 0.1])
def test_cosine(warmup: float, final: float) -> None:
    plan, steps, epochs = Schedule(0.4, warmup, "cosine", final), 10, 8
    begin = int(warmup * steps)
    rates = [plan.at(step, steps, epochs) for step in range(steps * epochs + 1)]
    assert rates[:begin] == pytest.approx([0.4 * (i + 1) / (begin + 1) for i in range(begin)])
    assert rates[begin] == pytest.approx(0.4) == max(rates)
    assert rates[-1] == pytest.approx(0.4 * final)
    middle = plan.at((begin + steps * epochs) / 2, steps, epochs)  # type: ignore[arg-type]
    assert middle == pytest.approx(0.4 * (1 + final) / 2)
    assert all(a > b for a, b in zip(rates[begin:], rates[begin + 1 :], strict=False))
    if final == 0.0 and warmup == 0.0:  # torch's own
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4)
        theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps * epochs)
        for rate in rates:
            assert rate == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
            optimizer.step()
            theirs.step()


@pytest.mark.parametrize("milestones", [None, (5.0, 6.0, 7.0), (1.0,), (2.5, 7.9)])
def test_steps_are_torchs(milestones: tuple[float, ...] | None) -> None:
    plan, steps, epochs = Schedule(0.4, 0.0, "step", milestones=milestones, factor=0.2), 10, 8
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4)
    where = [round(steps * epoch) for epoch in milestones or (5, 6, 7)]  # 5/8, 3/4 and 7/8 of 8 epochs
    theirs = torch.optim.lr_scheduler.MultiStepLR(optimizer, where, gamma=0.2)
    for step in range(steps * epochs):
        assert plan.at(step, steps, epochs) == pytest.approx(theirs.get_last_lr()[0], rel=1e-12)
        optimizer.step()
        theirs.step()
    warm = Schedule(0.4, 1.0, "step", milestones=(4.0,))
    assert warm.at(0, 10, 8) == pytest.approx(0.4 / 11) and warm.at(10, 10, 8) == 0.4
    assert warm.at(39, 10, 8) == 0.4 and warm.at(40, 10, 8) == pytest.approx(0.04)


def test_the_published_recipe_of_240_epochs() -> None:
    rates = [Schedule(0.05, 0.0, "step").at(epoch, 1, 240) for epoch in range(240)]
    assert [epoch for epoch in range(1, 240) if rates[epoch] != rates[epoch - 1]] == [150, 180, 210]
    assert rates[-1] == pytest.approx(5e-5)


def test_exponential_ends_constant() -> None:
    plan, steps, epochs = Schedule(0.4, 1.0, "exponential", 0.05), 10, 11
    rates = [plan.at(step, steps, epochs) for step in range(steps * epochs)]
    assert rates[10] == pytest.approx(0.4) == max(rates)
    factors = [b / a for a, b in zip(rates[10:], rates[11:], strict=False)]
    until = next(i for i, factor in enumerate(factors) if factor > 0.999)
    assert factors[: until - 1] == pytest.approx([factors[0]] * (until - 1))  # the same factor every step
    assert set(rates[10 + until :]) == {0.4 * 0.05}  # then constant to the end
    share = math.log(0.05) / math.log(0.005)
    assert until == pytest.approx(share * 100, abs=1.5)


def test_warmup_takes_at_most_half_of_the_training() -> None:
    rates = [Schedule(0.4, 5.0).at(step, 4, 2) for step in range(8)]
    assert rates == [Schedule(0.4, 1.0).at(step, 4, 2) for step in range(8)]
    assert rates[:4] == sorted(rates[:4]) and rates[0] > 0 and max(rates) == rates[4] == 0.4
    assert rates[4:] == sorted(rates[4:], reverse=True) and rates[-1] < 0.4


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"lr": 0.0}, "lr"),
        ({"lr": -1.0}, "lr"),
        ({"lr": math.nan}, "lr"),
        ({"lr": 0.1, "warmup_epochs": -1}, "warmup_epochs"),
        ({"lr": 0.1, "kind": "stairs"}, "schedule"),
        ({"lr": 0.1, "final": 1.0}, "final_lr"),
        ({"lr": 0.1, "final": -0.1}, "final_lr"),
        ({"lr": 0.1, "kind": "exponential"}, "final_lr"),
    ],
)
def test_impossible_schedules_are_refused(settings: dict, field: str) -> None:
    with pytest.raises(SettingError, match=f"^{field}="):
        Schedule(**settings)
