"""Ratings of spaces with elastic stems, heads and input sizes, and of stages that keep their input's width."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from elastic_spaces import ELASTIC, ENDS, MOBILE, VIT

from nas_kd.data import Data, load_data
from nas_kd.errors import SettingError
from nas_kd.nn import Recorder
from nas_kd.rate import rate_blockwise
from nas_kd.rate.halving import rate_stage
from nas_kd.runtime.device import Runtime
from nas_kd.solve import exact_front
from nas_kd.space import ElasticSpace
from nas_kd.space.rows import arch_of_rows, entries, rows_of
from nas_kd.supernet import Supernet
from nas_kd.teacher import Tap, load_teacher
from nas_kd.train.stages import Blockwise, StageFeatures

SETTINGS: dict[str, Any] = {"epochs": 2, "batch_size": 24, "calibration_images": 32, "rate_images": 16}


def whole(space: ElasticSpace) -> Supernet:
    """A supernet in which nothing is the identity."""
    net = Supernet(space, num_classes=3, in_chans=1, seed=4)
    generator = torch.Generator().manual_seed(1)
    for parameter in net.parameters():
        if parameter.ndim == 1:
            torch.nn.init.uniform_(parameter, 0.3, 1.0, generator=generator)
    return net


def parts(space: ElasticSpace, index: int, images: int, seed: int) -> StageFeatures:
    generator = torch.Generator().manual_seed(seed)
    sizes = space.stage_sizes()
    before = (1, space.resolution) if index == 0 else (5, sizes[index - 1])
    inputs = torch.randn(images, before[0], before[1], before[1], generator=generator)
    return StageFeatures(inputs, torch.randn(images, 7, sizes[index], sizes[index], generator=generator))


@pytest.mark.parametrize("space", ELASTIC, ids=lambda space: space.name)
@torch.no_grad()
def test_every_row_has_the_score_of_its_own_path(space: ElasticSpace) -> None:
    sizes = space.stage_sizes()
    for index in range(len(sizes)):
        taps = [Tap(str(i), 7 if i == index else 5, size, size, True) for i, size in enumerate(sizes)]
        model = Blockwise(whole(space), taps)
        calibration, rating = parts(space, index, 24, 1), parts(space, index, 20, 2)
        rows = rows_of(space, index, in_chans=1, num_classes=3)
        table = rate_stage(model, index, rows, calibration, rating, max_rows=10_000)
        assert table.drop(columns=["score", "images"]).equals(rows.drop(columns=["score", "images"]))
        assert table["score"].gt(0).all() and (table["images"] == 20).all()
        ways = entries(space, index)
        for row in table.iloc[:: max(1, len(table) // 30)].to_dict("records"):
            entry = ways[row.get("stem", 0)] if index == 0 else row["in_width"]
            candidate = space.stages[index].candidates()[row["candidate"]]
            recorder = Recorder()
            model.stages[index](model.enter(index, calibration.inputs, entry, recorder), candidate, recorder)
            norm = recorder.values()
            begun = model.enter(index, rating.inputs, entry, norm)
            assert begun.shape[1] == row["in_width"]
            _, pre = model.stages[index](begun, candidate, norm)
            error = (model.leave(index, pre) - rating.targets).double().square().mean((0, 2, 3))
            noise = error / rating.targets.double().var((0, 2, 3), unbiased=False)
            assert row["score"] == pytest.approx(float(noise.mean()), rel=1e-5)


@pytest.mark.parametrize("space", [ENDS, MOBILE, VIT], ids=lambda space: space.name)
def test_a_whole_rating_makes_archs(space: ElasticSpace, data: Data, runtime: Runtime) -> None:
    torch.manual_seed(1)
    teacher = load_teacher("cifar_resnet8", num_classes=3, in_chans=1)
    tables = rate_blockwise(whole(space), teacher, data, runtime=runtime, **SETTINGS)
    heads = len(space.head.choices())
    if heads > 1:
        scores = tables[-1]["score"].to_numpy().reshape(-1, heads)
        assert (scores == scores[:, :1]).all() and len(np.unique(scores[:, 0])) > 3
    if "stem" in tables[0] and not space.stages[0].keeps_width:  # stems are told apart by more than their costs
        assert tables[0].groupby("candidate")["score"].nunique().max() > 1
    front = exact_front(tables)
    for row in front.to_dict("records"):
        arch = arch_of_rows(space, tables, [row[f"row_{n}"] for n in range(1, len(tables) + 1)], data.resolution)
        assert (row["macs"], row["params"]) == space.cost(arch, in_chans=1, num_classes=3)
        assert arch.head == space.head.smallest()  # the dearer ones are not told apart, so the cheapest wins
    halved = rate_blockwise(whole(space), teacher, data, runtime=runtime, **SETTINGS, max_rows=6)
    for table, full in zip(halved, tables, strict=True):
        last = table["images"] == 16
        assert len(table) == len(full) and 0 < last.sum() <= len(full)
        assert table["score"][last].to_numpy() == pytest.approx(full["score"][last].to_numpy(), rel=1e-5)


def test_images_of_a_size_that_no_arch_has_are_refused(data: Data, runtime: Runtime) -> None:
    teacher = load_teacher("cifar_resnet8", num_classes=3, in_chans=1)
    x = torch.randint(0, 256, (60, 1, 9, 9), dtype=torch.uint8)
    other = load_data((x, torch.arange(60) % 3), rate=12, select=6, views=2)
    with pytest.raises(SettingError, match=r"data\.resolution=9.*6, 8, 10"):
        rate_blockwise(whole(ENDS), teacher, other, runtime=runtime, **SETTINGS)
