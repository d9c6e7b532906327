"""A tiny space, random images and a small teacher for ratings and scores; a conftest takes the fixtures it needs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nas_kd.blocks import BasicStage, ConvStem, LinearHead
from nas_kd.data import Data, load_data
from nas_kd.derive.space import teacher_space
from nas_kd.rate.scores import Bench
from nas_kd.runtime.device import Runtime
from nas_kd.space import Arch, ElasticSpace
from nas_kd.supernet import Supernet
from nas_kd.teacher import Teacher, load_teacher
from nas_kd.train.stages import Blockwise

SPACE = ElasticSpace(
    name="tiny",
    stem=ConvStem(width=8),
    stages=(
        BasicStage(widths=(4, 8), depths=(1, 2), mids=(2, 4), stride=1),
        BasicStage(widths=(8, 12), depths=(1, 3), mids=(4, 8), stride=2),
    ),
    head=LinearHead(),
    resolution=8,
)


@pytest.fixture(scope="session")
def data() -> Data:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (120, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return load_data((x, torch.arange(120) % 3), rate=24, select=6, views=2)


@pytest.fixture
def net() -> Supernet:
    torch.manual_seed(0)
    net = Supernet(SPACE, num_classes=3, in_chans=1)
    for name, parameter in net.named_parameters():
        # new inner blocks are the identity, which would make candidates equal
        if parameter.ndim == 1 and "fc" not in name:
            torch.nn.init.uniform_(parameter, 0.2, 1.0)
    return net


@pytest.fixture
def teacher() -> Teacher:
    torch.manual_seed(1)
    return load_teacher("cifar_resnet8", num_classes=3, in_chans=1)


@pytest.fixture(scope="session")
def runtime() -> Runtime:
    return Runtime("cpu")


@pytest.fixture
def archs(net: Supernet) -> list[Arch]:
    return list(dict.fromkeys(net.space.sample(seed) for seed in range(14)))[:12]


@pytest.fixture
def bench(net: Supernet, teacher: Teacher, data: Data, runtime: Runtime, archs: list[Arch]) -> Bench:
    taps = teacher.bind(data).match(net.space, data.resolution)
    truth = {arch.key: float(value) for arch, value in zip(archs, np.random.default_rng(0).random(12), strict=True)}
    return Bench(
        net.space,
        data,
        runtime,
        teacher,
        net,
        Blockwise(net, taps, seed=3),
        images=24,
        calibration_images=48,
        accuracies=truth,
        training_images=100.0,
    )


@pytest.fixture
def derived(teacher: Teacher, data: Data, runtime: Runtime) -> Bench:
    """A space that is the teacher, for scores of its units."""
    space = teacher_space(teacher.bind(data), data)
    return Bench(space, data, runtime, teacher, Supernet(space), seed=1)
