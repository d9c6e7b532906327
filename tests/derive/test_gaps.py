"""A stream that ends where no other begins: what lies between it and the next choice is counted as it is cut."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import nas_kd

IMAGE = {"resolution": 8, "in_chans": 3, "num_classes": 4}


class Pair(nn.Module):
    """A residual block that gives two tensors, and so is none to be left out where both are needed."""

    def __init__(self, inputs: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.one = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.two = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.shortcut = None if (inputs, stride) == (width, 1) else nn.Conv2d(inputs, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        before = self.two(F.relu(self.norm(self.one(x)))) + (x if self.shortcut is None else self.shortcut(x))
        return F.relu(before), before


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 1, 1)
        self.blocks = nn.ModuleList([Pair(8, 8), Pair(8, 8), Pair(8, 12, 2), Pair(12, 12), Pair(12, 16, 2)])
        self.fc = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x, before = block(x)
            assert before.shape == x.shape
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize("residual", [False, True])
def test_archs_cost_what_their_networks_cost(residual: bool) -> None:
    torch.manual_seed(0)
    space = nas_kd.teacher_space(nas_kd.load_teacher(Net()), residual=residual, resolution=8)
    net = nas_kd.Supernet(space)
    archs = {space.sample(seed=seed) for seed in range(40)} | {space.largest(), space.smallest()}
    assert len(archs) > 10 and len({space.cost(arch, **IMAGE).params for arch in archs}) > 10
    for arch in archs:
        network = space.build(arch, num_classes=4)
        macs = 0

        def count(layer: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
            nonlocal macs
            macs += layer.weight.numel() * out[0].numel() // len(layer.weight)

        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.register_forward_hook(count)
        network.eval()(torch.zeros(1, 3, 8, 8))
        assert space.cost(arch, **IMAGE) == (macs, sum(p.numel() for p in network.parameters()))
    assert sum(p.numel() for p in net.parameters()) == space.cost(space.largest(), **IMAGE).params


def test_a_space_is_derived_where_gradients_are_off() -> None:
    torch.manual_seed(0)
    teacher = nas_kd.load_teacher(Net())
    space = nas_kd.teacher_space(teacher, resolution=8)
    with torch.no_grad():
        again = nas_kd.teacher_space(teacher, resolution=8)
        assert not torch.is_grad_enabled()
    assert again.hash == space.hash
