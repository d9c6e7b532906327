"""A tiny space, images of three textures, a teacher that knows them, and tables with made-up scores."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from nas_kd.blocks import BasicStage, ConvStem, LinearHead
from nas_kd.data import Data, load_data
from nas_kd.runtime.device import Runtime
from nas_kd.space import ElasticSpace
from nas_kd.space.rows import rows_of
from nas_kd.supernet import Supernet
from nas_kd.teacher import Teacher
from nas_kd.train import train_teacher

SPACE = ElasticSpace(
    name="tiny",
    stem=ConvStem(width=4),
    stages=(
        BasicStage(widths=(4, 6), depths=(1, 2), mids=(2, 4), stride=2),
        BasicStage(widths=(6, 8), depths=(1, 2), mids=(2, 4, 6), stride=2),
    ),
    head=LinearHead(),
    resolution=8,
)


@pytest.fixture(scope="session")
def space() -> ElasticSpace:
    return SPACE


@pytest.fixture(scope="session")
def data() -> Data:
    """Stripes along, stripes across and noise, all with noise on top."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 120, (240, 1, 8, 8), generator=generator)
    y = torch.arange(240) % 3
    x[y == 0, :, ::2] += 110
    x[y == 1, :, :, ::2] += 110
    return load_data((x.to(torch.uint8), y), rate=0.2, select=0.2, views=2)


@pytest.fixture(scope="session")
def runtime() -> Runtime:
    return Runtime("cpu")


@pytest.fixture(scope="session")
def cost(data: Data) -> dict[str, int]:
    return {"resolution": data.resolution, "in_chans": data.in_chans, "num_classes": data.num_classes}


@pytest.fixture(scope="session")
def teacher(data: Data, runtime: Runtime) -> Teacher:
    return train_teacher("cifar_resnet8", data, epochs=4, batch_size=16, lr=0.1, warmup_epochs=0.5, runtime=runtime)


@pytest.fixture
def net(data: Data) -> Supernet:
    torch.manual_seed(0)
    return Supernet(SPACE, num_classes=data.num_classes, in_chans=data.in_chans)


@pytest.fixture
def tables(cost: dict[str, int]) -> list[pd.DataFrame]:
    """Scores drawn once, and better for what costs more."""
    rng = np.random.default_rng(0)
    found = []
    for index in range(len(SPACE.stages)):
        table = rows_of(SPACE, index, **cost)
        score = 2.0 - table["macs"] / table["macs"].max() + 0.1 * rng.random(len(table))
        found.append(table.assign(score=score, images=48))
    return found
