"""The compiled ends of a sandwich: which subnets are compiled, and that their gradients are the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_spaces import BASIC, MOBILE, full_net
from torch import Tensor

from nas_kd.distill import Classification
from nas_kd.losses import adaptive_alpha_divergence
from nas_kd.space import ElasticSpace
from nas_kd.supernet import Supernet
from nas_kd.train.compiled import compiled_forward
from nas_kd.train.loop import StepInfo
from nas_kd.train.rules import Sandwich
from nas_kd.train.sandwich import Forward, Images, teach


def gradients(net: Supernet, forward: Forward | None) -> list[Tensor]:
    x = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    subnet_targets = Sandwich(net.space).subnet_targets(StepInfo(0, 0, 0.0), None)  # type: ignore[arg-type]
    net.zero_grad(set_to_none=True)
    teach(
        net,
        Images(x),
        torch.arange(6),
        subnet_targets,
        task=Classification(),
        divergence=adaptive_alpha_divergence,
        forward=forward,
    )
    return [parameter.grad.clone() for parameter in net.parameters() if parameter.grad is not None]


def test_the_two_ends_are_compiled_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def compiling(function: Callable[..., Tensor], **settings: Any) -> Callable[..., Tensor]:
        number = len(calls)
        calls.append(0)
        assert settings == {"dynamic": False}

        def run(*arguments: Any) -> Tensor:
            calls[number] += 1
            return function(*arguments)

        return run

    monkeypatch.setattr(torch, "compile", compiling)
    net = full_net(MOBILE)
    forward = compiled_forward(net)
    assert calls == [0, 0]
    compiled = gradients(net, forward)
    assert calls == [1, 1]  # of four subnets
    assert all(torch.equal(a, b) for a, b in zip(compiled, gradients(net, None), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("space", [BASIC, MOBILE], ids=lambda s: s.name)
def test_compiled_gradients_are_the_same(space: ElasticSpace) -> None:
    net = full_net(space, kernel_transform=True)
    compiled = gradients(net, compiled_forward(net))
    for mine, theirs in zip(compiled, gradients(net, None), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)
