"""Tiny data and a teacher that knows nothing: what a public function needs to be taken once through."""

from __future__ import annotations

import pytest
import torch

from nas_kd.data import Data, load_data
from nas_kd.teacher import Teacher, load_teacher


@pytest.fixture
def tiny_data() -> Data:
    """Random grey images of 8 px in three classes."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (120, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return load_data((x, torch.arange(120) % 3), rate=24, select=12, views=2)


@pytest.fixture
def tiny_teacher() -> Teacher:
    """A ResNet-8 with random weights."""
    torch.manual_seed(1)
    return load_teacher("cifar_resnet8", num_classes=3, in_chans=1)
