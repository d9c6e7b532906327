"""Small networks of users, for the tests that load them by name."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PreAct(nn.Module):
    """A block that changes its own input in place."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, width, 3, stride, 1)
        self.skip = nn.Conv2d(inputs, width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x, inplace=True)
        return self.conv(x) + self.skip(x)


class Net(nn.Module):
    def __init__(self, num_classes: int = 4, in_chans: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_chans, 8, 3, 1, 1)
        self.blocks = nn.ModuleList([PreAct(8, 8, 1), PreAct(8, 16, 2), PreAct(16, 32, 2)])
        self.head = nn.Linear(32, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


def net(num_classes: int = 4, in_chans: int = 3) -> Net:
    return Net(num_classes, in_chans)


def fixed() -> Net:
    return Net()


def plain(num_classes: int = 4, **unused: int) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, width in ((3, 8), (8, 8), (8, 16)):
        layers += [nn.Conv2d(inputs, width, 3, 1, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes))


def no_module() -> Tensor:
    return torch.zeros(1)


class Map(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)
