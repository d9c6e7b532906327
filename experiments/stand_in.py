"""What `--quick` runs on: random images and a teacher that knows nothing, in the place of files that are not here.

Every script takes `--quick`: the same code on next to nothing, to see that it still runs. What it prints and writes
(below runs/quick) means nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from nas_kd import load_data, load_teacher
from nas_kd.data import Data
from nas_kd.teacher import Teacher

QUICK = Path("runs/quick")
HELP = "tiny data and trainings, to see that the script runs; the numbers mean nothing"


def random_data(train: int, **settings: Any) -> Data:
    """Make random images of 32 px in ten classes, 40 of them for the test."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (train + 40, 3, 32, 32), dtype=torch.uint8, generator=generator)
    y = torch.arange(train + 40) % 10
    return load_data((x[:train], y[:train]), test=(x[train:], y[train:]), **settings)


def untrained_teacher(data: Data) -> Teacher:
    """Make a ResNet-8 with random weights."""
    torch.manual_seed(0)
    return load_teacher("cifar_resnet8", num_classes=data.num_classes).bind(data)
