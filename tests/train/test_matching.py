"""Cream's meta network: its gradient is the derivative of the held-out loss after a step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nas_kd
from nas_kd.data import Data, load_data
from nas_kd.errors import SettingError
from nas_kd.losses import kl_divergence
from nas_kd.runtime.stop import Stopped
from nas_kd.supernet import Supernet
from nas_kd.train import loop
from nas_kd.train.matching import LR, MetaMatcher, held_out_slope
from nas_kd.train.supernet_config import SupernetConfig


def answers(logits: Tensor) -> Tensor:
    return logits.softmax(-1)


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Any:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_slope_is_the_derivative_of_the_held_out_loss(double: Any) -> None:
    """By differences of the whole step, in float64: label loss and soft loss, then a loss on other images."""
    net = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))
    for seed, parameter in enumerate(net.parameters()):
        parameter.data = drawn(*parameter.shape, seed=seed)
    parameters = list(net.parameters())
    unused = nn.Parameter(torch.ones(2))  # of another arch
    x, other, y, target = drawn(8, 5, seed=9), drawn(8, 5, seed=10), torch.arange(8) % 3, drawn(8, 3, seed=11)
    rate = 0.3

    def losses() -> tuple[Tensor, Tensor]:
        return nn.functional.cross_entropy(net(x), y), kl_divergence(net(x), target)

    def held_out() -> Tensor:
        return nn.functional.cross_entropy(net(other), y)

    def after(degree: float) -> float:
        kept = [parameter.detach().clone() for parameter in parameters]
        one, soft = losses()
        steps = torch.autograd.grad(one + degree * soft, parameters)
        with torch.no_grad():
            for parameter, step in zip(parameters, steps, strict=True):
                parameter.sub_(rate * step)
        found = float(held_out().detach())
        with torch.no_grad():
            for parameter, old in zip(parameters, kept, strict=True):
                parameter.copy_(old)
        return found

    before = [parameter.detach().clone() for parameter in parameters]
    found = held_out_slope([*parameters, unused], losses, held_out, 0.4, rate)
    assert float(found) == pytest.approx((after(0.4 + 1e-5) - after(0.4 - 1e-5)) / 2e-5, rel=1e-6)
    assert all(torch.equal(parameter, old) for parameter, old in zip(parameters, before, strict=True))


def test_degrees_are_of_the_difference_of_answers_and_move_against_the_slope() -> None:
    matcher = MetaMatcher(3, answers, seed=1)
    own, theirs = drawn(6, 3), drawn(4, 6, 3, seed=1)
    apart = (own.softmax(1) - theirs.softmax(2)).mean(1)
    wanted = torch.sigmoid(apart @ matcher.weight + matcher.bias)
    degrees = matcher(own, theirs)
    torch.testing.assert_close(degrees, wanted)
    assert float(matcher(own, own[None]).detach()) == pytest.approx(0.5)  # nothing told them apart
    weight = matcher.weight.detach().clone()
    (by_hand,) = torch.autograd.grad(wanted[2], [matcher.weight])
    matcher.learn(torch.tensor(2.0), degrees[2], lambda values: values)
    torch.testing.assert_close(matcher.weight.detach(), weight - LR * 2.0 * by_hand)
    assert float(matcher(own, theirs)[2].detach()) < float(degrees[2].detach())


@pytest.fixture(scope="module")
def few() -> Data:
    return load_data("digits", subset=200, rate=20, select=20)


HOW: dict[str, Any] = {"rule": "cream", "matching": "meta", "board": 3, "epochs": 8, "batch_size": 16}


def test_the_meta_network_learns_in_a_training_and_is_resumed(
    few: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    real = MetaMatcher.learn

    def learn(self: MetaMatcher, slope: Tensor, degree: Tensor, mean: Any) -> None:
        real(self, slope, degree, mean)
        seen.append(self.weight.detach().clone())

    monkeypatch.setattr(MetaMatcher, "learn", learn)
    space = nas_kd.load_space("digits")
    whole = Supernet(space, num_classes=10, in_chans=1, seed=0)
    nas_kd.train_supernet(whole, few, run=tmp_path / "whole", **HOW)
    assert len(seen) >= 2 and not torch.equal(seen[0], seen[-1])
    stopping, calls = loop._should_stop, []

    def stop(*args: Any) -> bool:
        calls.append(args)
        return len(calls) == 45 or stopping(*args)

    monkeypatch.setattr(loop, "_should_stop", stop)
    with pytest.raises(Stopped):
        nas_kd.train_supernet(Supernet(space, 10, 1, seed=0), few, run=tmp_path / "parts", **HOW)
    monkeypatch.setattr(loop, "_should_stop", stopping)
    parts = Supernet(space, 10, 1, seed=0)
    nas_kd.train_supernet(parts, few, run=tmp_path / "parts", **HOW)
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(one, other)
    plain = Supernet(space, 10, 1, seed=0)
    nas_kd.train_supernet(plain, few, run=tmp_path / "plain", **HOW | {"matching": "agreement"})
    assert any(not torch.equal(one, other) for one, other in zip(whole.parameters(), plain.parameters(), strict=True))
    facts = [json.loads((tmp_path / name / "supernet/stage.json").read_text())["inputs"] for name in ("whole", "plain")]
    assert facts[0]["supernet.matching"] == "meta" and "supernet.matching" not in facts[1]


def test_a_meta_network_without_a_board_is_refused() -> None:
    with pytest.raises(SettingError, match=r"supernet\.matching='meta'.*cream"):
        SupernetConfig(rule="fair", matching="meta")
