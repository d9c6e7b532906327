"""Networks that change their images in place teach, and are taught, as if they did not, by every method.

`keep_input` hands such a network a copy; what is asked here is that no method calls a network around it: a game that
asks the teacher about made images, a view of privileged images, a second student, a moving average.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import nas_kd
from nas_kd.data import Batch, Data
from nas_kd.distill import METHODS, SoftTree
from nas_kd.distill.own import Privileged

# several networks, or several calls, take the same images
OFTEN = {
    *("ab", "bss", "byot", "cs_kd", "ddgsd", "dfa", "dml", "fitnet", "gan_kd", "grafting", "kd", "mean_teacher"),
    *("multi_teacher", "privileged", "soft_tree", "takd", "zskt", "dafl", "dfad", "dfq"),
}
SHAPE, CLASSES, WIDTH = (3, 8, 8), 4, 8


class Tidy(nn.Module):
    """Two convolutions behind a normalisation of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, WIDTH, 3, 1, 1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, 2, 1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU())
        self.fc = nn.Linear(WIDTH, CLASSES)

    def prepared(self, x: Tensor) -> Tensor:
        return (x - 0.5) * 4

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.second(self.first(self.prepared(x))).mean((2, 3)))


class Untidy(Tidy):
    """The same function, whose images are other ones afterwards."""

    def prepared(self, x: Tensor) -> Tensor:
        return x.sub_(0.5).mul_(4)


@pytest.fixture(scope="module")
def data() -> Data:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(48) % CLASSES
    x = torch.rand(48, *SHAPE, generator=generator) + F.one_hot(y, 8)[:, None, None].float()
    return nas_kd.load_data(((x / 2 * 255).to(torch.uint8), y), rate=0.2, select=0.2, views=0)


def made(kind: type[Tidy], seed: int) -> Tidy:
    torch.manual_seed(seed)
    return kind()


def student_of(kind: type[Tidy], method: str, data: Data) -> nn.Module:
    seeds = (1, 2) if method == "multi_teacher" else (1,)
    teachers = [nas_kd.load_teacher(made(kind, seed)) for seed in seeds]
    torch.manual_seed(3)
    network = SoftTree(2, math.prod(SHAPE), CLASSES) if method == "soft_tree" else kind()
    settings = {"assistants": [made(kind, 4)]} if method == "takd" else {}
    return nas_kd.retrain(network, teachers, data, method=method, epochs=1, batch_size=8, test=False, **settings)


METHODS_OF_CLASSES = [name for name in sorted(METHODS) if "classes" in METHODS[name].kinds and not METHODS[name].texts]


@pytest.mark.parametrize(
    "method",
    [pytest.param(name, marks=() if name in OFTEN else pytest.mark.slow) for name in METHODS_OF_CLASSES],
)
def test_images_stay_as_they_are(data: Data, method: str) -> None:
    tidy, untidy = (student_of(kind, method, data).state_dict() for kind in (Tidy, Untidy))
    assert all(torch.equal(tensor, untidy[name]) for name, tensor in tidy.items())


def test_a_view_of_privileged_images_may_change_what_it_is_given() -> None:
    images = torch.rand(4, *SHAPE)
    none = torch.zeros(4, dtype=torch.int64)
    batch = Batch(images.clone(), none, none, none - 1)
    teacher = nas_kd.load_teacher(made(Untidy, 1))
    seen = Privileged(teacher, lambda batch: batch.x.mul_(2)).logits(batch)
    assert torch.equal(batch.x, images)
    assert torch.equal(seen, Privileged(teacher, lambda batch: batch.x * 2).logits(batch))
