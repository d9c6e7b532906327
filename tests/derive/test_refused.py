"""Teachers that cannot be cut are refused before anything trains, and the message says where and why."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nas_kd
from nas_kd.errors import SettingError
from nas_kd.teacher import Teacher


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(8, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 8, 3, padding=1)

    def inner(self, x: Tensor) -> Tensor:
        return self.conv1(x).relu()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.inner(x))


class Net(nn.Module):
    """A residual network of two blocks; classes below break it."""

    block: type[nn.Module] = Block

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.first = self.block()
        self.second = self.block()
        self.head = nn.Linear(8, 5)

    def features(self, x: Tensor) -> Tensor:
        return self.second(self.first(self.stem(x)))

    def forward(self, x: Tensor) -> Any:
        return self.head(self.features(x).mean((2, 3)))


class Deciding(Block):
    def inner(self, x: Tensor) -> Tensor:
        if x.mean() > 0:
            return self.conv1(x).relu()
        return self.conv1(x).tanh()


class Masking(Block):
    def forward(self, x: Tensor) -> Tensor:
        kept = x[x > 0]
        return x + self.conv2(self.inner(x)) * kept.mean()


class Broken(Block):
    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(x)


class Drawing(Block):
    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.inner(x)) * torch.rand(())


class BatchOfTwo(Net):
    def features(self, x: Tensor) -> Tensor:
        return super().features(x).view(2, 8, 8, 8)


class Twice(Net):
    def features(self, x: Tensor) -> Tensor:
        return self.first(self.first(self.stem(x)))


class Tied(Net):
    def __init__(self) -> None:
        super().__init__()
        self.second.conv1.weight = self.first.conv1.weight  # type: ignore[union-attr]


class Maps(Net):
    def forward(self, x: Tensor) -> Any:
        return {"logits": super().forward(x)}


class Shuffling(Block):
    """Its channels are put in an order that tracing does not see."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("places", torch.randperm(16, generator=torch.Generator().manual_seed(0)))

    def inner(self, x: Tensor) -> Tensor:
        return super().inner(x)[:, self.places]


class Padding(Net):
    """The streams of its stages are tied by a skip that adds channels of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(8, 12, 3, padding=1)
        self.head = nn.Linear(12, 5)

    def features(self, x: Tensor) -> Tensor:
        x = super().features(x)
        return self.wide(x) + nn.functional.pad(x, (0, 0, 0, 0, 2, 2))


class Whole(nn.Module):
    """Nothing in it can be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.mean((2, 3)))


def of(block: type[nn.Module]) -> type[nn.Module]:
    return type(f"Net{block.__name__}", (Net,), {"block": block})


REFUSED: dict[str, tuple[type[nn.Module], str]] = {
    "a branch by values": (of(Deciding), r"first \(test_refused\.py:\d+: if x\.mean\(\) > 0:\).*decide a"),
    "a shape by values": (of(Masking), r"first \(test_refused\.py:\d+: kept = x\[x > 0\]\).*decide a shape"),
    "an error in it": (of(Broken), r"first\.conv2 \(test_refused\.py:\d+: return x \+ self\.conv2\(x\)\)"),
    "random draws": (of(Drawing), r"repeats its logits; two passes over the same images differ by"),
    "one batch size": (BatchOfTwo, r"batches of any size.*use x\.shape\[0\]"),
    "a block used twice": (Twice, r"first runs 2 times"),
    "tied weights": (Tied, r"first\.conv1\.weight and second\.conv1\.weight are tied"),
    "no logits": (Maps, r"to logits \(2, classes\), not dict"),
    "nothing to cut": (Whole, r"residual blocks, or with channels inside a block"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_teachers_that_cannot_be_cut_are_named(case: str) -> None:
    network, message = REFUSED[case]
    with pytest.raises(SettingError, match=message):
        nas_kd.teacher_space(Teacher(network(), "own", num_classes=5), resolution=16)


def test_weighing_by_images_needs_images(capsys: pytest.CaptureFixture[str]) -> None:
    teacher = Teacher(Net(), "own", num_classes=5)
    for importance in ("activation", "taylor"):
        with pytest.raises(SettingError, match=r"importance='.*'.*images to weigh channels on.*pass data="):
            nas_kd.teacher_space(teacher, resolution=16, importance=importance)
    assert "l1" not in capsys.readouterr().err
    assert nas_kd.teacher_space(teacher, resolution=16).size > 1
    assert "norms of their weights (l1)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("network", "stays", "units"),
    [(of(Shuffling), "first.conv1, second.conv1", 0), (Padding, "stem, first.conv2, second.conv2, wide", 1)],
)
def test_what_cannot_be_cut_stays_and_is_listed(
    network: type[nn.Module], stays: str, units: int, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = Teacher(network(), "own", num_classes=5)
    space = nas_kd.teacher_space(teacher, resolution=16, residual=True)
    assert f"cannot be cut and stay as they are: {stays}" in capsys.readouterr().err
    assert [len(unit.groups) for unit in space.derived.units] == [units, units]
    net = nas_kd.Supernet(space).eval()
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(net(x, space.largest(), norm=space.norm), teacher(x))
    assert net.extract(space.smallest())(x).shape == (2, 5)
