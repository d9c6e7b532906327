"""Successive halving: fewer layers, no lost budget, no partial score taken for a full one."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from nas_kd.blocks import BasicStage, ConvStem, LinearHead
from nas_kd.rate.halving import better_half, count_evaluations, rate_stage, schedule
from nas_kd.space import ElasticSpace
from nas_kd.space.rows import full_rows, rows_of
from nas_kd.supernet import Supernet
from nas_kd.teacher import Tap
from nas_kd.train.stages import Blockwise, StageFeatures

SHAPE = {"resolution": 8, "in_chans": 1, "num_classes": 3}


@pytest.fixture
def model() -> Blockwise:
    torch.manual_seed(0)
    stage = BasicStage(widths=(4, 8), depths=(1, 2, 3), mids=(2, 3, 4), stride=2)
    space = ElasticSpace("one", ConvStem(width=8), (stage,), LinearHead(), resolution=8)
    return Blockwise(Supernet(space, 3, 1), [Tap("a", 5, 4, 4, True)], seed=1)


@pytest.fixture
def features() -> list[StageFeatures]:
    torch.manual_seed(2)
    return [StageFeatures(torch.randn(n, 1, 8, 8), torch.randn(n, 5, 4, 4)) for n in (128, 160)]


def test_all_rows_are_rated_up_to_the_limit(model: Blockwise, features: list[StageFeatures]) -> None:
    rows = rows_of(model.space, 0, **SHAPE)
    assert len(rows) == 78
    table = rate_stage(model, 0, rows, *features, max_rows=78)
    assert table["score"].notna().all() and (table["images"] == 160).all()
    assert full_rows(table) is not None and len(full_rows(table)) == 78
    candidates = model.space.stages[0].candidates()
    assert count_evaluations(model.space, 0, table) == (78, sum(c.depth for c in candidates))
    assert rows["score"].isna().all()  # what was passed in is unchanged


def test_halving_keeps_full_scores_and_marks_the_rest(model: Blockwise, features: list[StageFeatures]) -> None:
    rows = rows_of(model.space, 0, **SHAPE)
    everything = rate_stage(model, 0, rows, *features, max_rows=1000)
    announced: list[int] = []
    advanced: list[int] = []
    table = rate_stage(
        model, 0, rows, *features, max_rows=20, announce=announced.append, advance=lambda: advanced.append(1)
    )
    assert sorted(table["images"].unique()) == [40, 80, 160]
    full = full_rows(table)
    assert 20 <= len(full) <= 24
    assert full["score"].equals(everything.loc[full.index, "score"])  # the last round is the whole rating
    assert table["score"].notna().all()
    assert list(table.index) == list(range(78))
    made, path_by_path = count_evaluations(model.space, 0, table)
    assert made == len(advanced) == 78 + sum(announced)
    assert path_by_path > made
    for column in ("macs", "params"):  # the smallest budget stays feasible in every width
        assert (full.groupby("out_width")[column].min() == table.groupby("out_width")[column].min()).all()


def test_better_half_is_chosen_inside_cost_bins() -> None:
    count = 128
    table = pd.DataFrame(
        {
            "in_width": 4,
            "out_width": 8,
            "macs": range(count),
            "params": range(count),
            "score": [float(count - row) for row in range(count)],  # the larger the better
        }
    )
    # the better four of each of 16 bins of eight, and the cheapest
    assert list(better_half(table)) == [0, *(row for row in range(count) if row % 8 > 3)]


def test_every_pair_of_widths_stays() -> None:
    table = pd.DataFrame(
        {
            "in_width": [4, 4, 8, 8, 8],
            "out_width": [4, 8, 4, 8, 8],
            "macs": [1, 2, 3, 4, 5],
            "params": [1, 2, 3, 4, 5],
            "score": [9.0, 8.0, 7.0, float("nan"), 1.0],
        }
    )
    assert list(better_half(table)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("rows", "limit", "images", "plan"),
    [
        (100, 100, 512, [(0, 512, 512)]),
        (101, 100, 512, [(0, 256, 256), (1, 512, 512)]),
        (400, 100, 512, [(0, 128, 128), (1, 256, 256), (1, 512, 512)]),
        (1600, 100, 40, [(0, 16, 64), (3, 20, 256), (1, 40, 512)]),
        (1600, 100, 3, [(0, 2, 64), (4, 3, 512)]),
    ],
)
def test_schedule(rows: int, limit: int, images: int, plan: list[tuple[int, int, int]]) -> None:
    assert schedule(rows, limit, images, 512) == plan


def test_full_rows_without_a_column() -> None:
    table = pd.DataFrame({"score": [1.0, 2.0]})
    assert full_rows(table) is table
