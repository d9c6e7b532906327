"""Teachers of many families with weights that are not their first ones, and what is found of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import timm
import torch
from torch import Tensor, nn

from nas_kd.derive.calling import batch_norms
from nas_kd.derive.cut import sizes
from nas_kd.derive.groups import Group
from nas_kd.derive.importance import importance_order
from nas_kd.derive.network import Choice, CutNet
from nas_kd.derive.units import Unit, find_parts
from nas_kd.nn.norm import NormValues
from nas_kd.teacher.cifar_resnet import cifar_resnet20

SHARES = (0.25, 0.5, 0.75, 1.0)


class Branch(nn.Module):
    """A block of a user's own: two ways that are put side by side, and a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.left = nn.Conv2d(width, 12, 3, padding=1)
        self.right = nn.Conv2d(width, 20, 1)
        self.join = nn.Conv2d(32, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        both = torch.cat([self.left(x).relu(), self.right(x).relu()], 1)
        return x + self.join(both)


class Own(nn.Module):
    """A network of a user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.first = Branch(16)
        self.second = Branch(16)
        self.fc = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to logits (B, 10)."""
        return self.fc(self.second(self.first(self.stem(x))).mean((2, 3)))


class Plain(nn.Module):
    """A chain of layers as of VGG: no way around any of them."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, width in ((3, 12), (12, 32), (32, 40)):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.fc1 = nn.Linear(40 * 4 * 4, 48)
        self.fc2 = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 32, 32) to logits (B, 10)."""
        return self.fc2(self.fc1(self.features(x).flatten(1)).relu())


OWN = {"own": Own, "plain": Plain}
TIMM = {
    "resnet18": (64, 8),
    "resnet50": (64, 16),
    "resnext50_32x4d": (64, 16),
    "regnety_002": (64, 13),
    "mobilenetv2_100": (64, 16),
    "mobilenetv3_small_100": (64, 11),
    "mobilenetv4_conv_small": (64, 14),
    "efficientnet_lite0": (64, 15),
    "convnext_atto": (64, 12),
    "vit_tiny_patch16_224": (32, 12),
    "deit_tiny_distilled_patch16_224": (32, 12),
    "swin_tiny_patch4_window7_224": (224, 12),
    "nf_resnet26": (64, 8),  # no norms
    "resnetv2_50d_gn": (64, 17),  # group norms; its stem has channels inside too
    "repvgg_a0": (64, 22),  # nothing inside: blocks are left out, streams are cut
    "densenet121": (64, 58),
}
UNITS = {"cifar_resnet20": 9, "own": 2, "plain": 0} | {name: units for name, (_, units) in TIMM.items()}


@dataclass(frozen=True)
class Case:
    """A teacher, what is found of it, and the network of all its cuts.

    Args:
        name: of the teacher.
        teacher: in evaluation mode.
        images: (2, 3, H, W).
        units: its units.
        streams: its streams.
        net: all its cuts.
        norm: the teacher's own statistics.
    """

    name: str
    teacher: nn.Module
    images: Tensor
    units: list[Unit]
    streams: Sequence[Group]
    net: CutNet
    norm: NormValues

    def draw(self, seed: int) -> list[Choice]:
        """Draw a choice a unit and a stream."""
        rng = torch.Generator().manual_seed(seed)
        chosen: list[Choice] = []
        for index, unit in enumerate(self.units):
            rows = list(zip(*(sizes(group, SHARES) for group in unit.groups), strict=False)) or [()]
            offered: list[Choice] = [*rows, self.net.whole(index), *([None] if unit.removable else [])]
            chosen.append(offered[int(torch.randint(len(offered), (1,), generator=rng))])
        for stream in self.streams:
            counts = sizes(stream, SHARES)
            chosen.append((counts[int(torch.randint(len(counts), (1,), generator=rng))],))
        return chosen


def make(name: str) -> tuple[nn.Module, int]:
    """Build a teacher with statistics that are not the first ones."""
    torch.manual_seed(0)
    size = 32
    if name == "cifar_resnet20":
        network: nn.Module = cifar_resnet20()
    elif name in OWN:
        network = OWN[name]()
    else:
        size = TIMM[name][0]
        more = {"img_size": size} if name.startswith(("vit", "deit", "swin")) else {}
        network = timm.create_model(name, num_classes=10, **more)
    for module in network.modules():
        if getattr(module, "running_var", None) is not None:
            module.running_var.uniform_(0.5, 2.0)  # type: ignore[operator, union-attr]
            module.running_mean.normal_(0.0, 0.3)  # type: ignore[operator, union-attr]
    return network.eval(), size


@pytest.fixture(scope="module", params=UNITS)
def case(request: pytest.FixtureRequest) -> Case:
    teacher, size = make(request.param)
    images = torch.randn(2, 3, size, size)
    units, links = find_parts(teacher, images, residual=True)
    parts = [*units, *(Unit(stream.root, (stream,), False, (), ()) for stream in links.streams)]
    order = importance_order(teacher, parts, [(images, torch.zeros(2, dtype=torch.long))])
    norm = {path: (m.running_mean.clone(), m.running_var.clone()) for path, m in batch_norms(teacher).items()}
    net = CutNet(teacher, units, order, links.streams).eval()
    return Case(request.param, teacher, images, units, links.streams, net, norm)
