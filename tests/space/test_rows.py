"""Rows of rating tables against the spaces: any chain of rows is an arch and costs what the space counts."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from elastic_spaces import BOTTLENECK, ELASTIC, ENDS, MOBILE, PLAIN, VIT

from nas_kd.errors import SettingError
from nas_kd.solve import exact_front
from nas_kd.space import ElasticSpace, load_space, space_names
from nas_kd.space.rows import arch_of, arch_of_rows, choices_of, cost_rows, rows_of

SHAPE = {"in_chans": 1, "num_classes": 5}


def spaces() -> list[ElasticSpace]:
    """Small elastic spaces, and the named ones whose candidates are not too many to score in a test."""
    named = [load_space(name) for name in space_names()]
    return [*ELASTIC, *(space for space in named if sum(stage.size for stage in space.stages) < 60_000)]


def scored(space: ElasticSpace, resolution: int | None, seed: int = 0) -> list[pd.DataFrame]:
    rng = np.random.default_rng(seed)
    tables = [rows_of(space, index, **SHAPE, resolution=resolution) for index in range(len(space.stages))]
    return [table.assign(score=rng.random(len(table)) + 1e3 / table["macs"], images=9) for table in tables]


@pytest.mark.parametrize("space", spaces(), ids=lambda space: space.name)
def test_the_exact_front_costs_what_its_archs_cost(space: ElasticSpace) -> None:
    for resolution in space.resolutions[:2] or (None,):
        tables = scored(space, resolution)
        front = exact_front(tables)
        assert len(front)
        for row in front.iloc[:: max(1, len(front) // 40)].to_dict("records"):
            labels = [row[f"row_{number}"] for number in range(1, len(tables) + 1)]
            arch = arch_of_rows(space, tables, labels, resolution)
            space.validate(arch)
            assert (row["macs"], row["params"]) == space.cost(arch, **SHAPE)
            widths = [table.loc[label, "out_width"] for table, label in zip(tables, labels, strict=True)]
            assert widths == [candidate.width for candidate in arch.stages]
            assert arch.resolution == resolution or not space.resolutions


@pytest.mark.parametrize("space", ELASTIC, ids=lambda space: space.name)
def test_chains_of_rows_are_the_archs_of_one_resolution(space: ElasticSpace) -> None:
    resolution = space.resolutions[0] if space.resolutions else None
    tables = cost_rows(space, **SHAPE, resolution=resolution)
    found = {}
    for rows in product(*(table.itertuples() for table in tables)):
        if all(left.out_width == right.in_width for left, right in zip(rows, rows[1:], strict=False)):
            arch = arch_of_rows(space, tables, [row.Index for row in rows], resolution)
            assert arch not in found
            found[arch] = (sum(row.macs for row in rows), sum(row.params for row in rows))
    assert set(found) == {arch for arch in space if arch.resolution == resolution}
    assert all(cost == space.cost(arch, **SHAPE) for arch, cost in found.items())


@pytest.mark.parametrize("space", ELASTIC, ids=lambda space: space.name)
def test_any_choices_of_the_stages_are_an_arch(space: ElasticSpace) -> None:
    resolution = space.resolutions[-1] if space.resolutions else 8
    tables = cost_rows(space, **SHAPE, resolution=resolution)
    each = [sorted(set(choices_of(space, index, table).tolist())) for index, table in enumerate(tables)]
    archs = [arch_of(space, choices, resolution) for choices in product(*each)]
    assert set(archs) == {arch for arch in space if arch.resolution in (None, resolution)}
    assert len(set(archs)) == len(archs)


def test_columns_and_order() -> None:
    plain, ends, mobile = (rows_of(space, 0, **SHAPE) for space in (PLAIN, ENDS, MOBILE))
    assert list(plain) == ["score", "macs", "params", "in_width", "out_width", "candidate", "label", "images"]
    assert list(ends)[8:] == ["stem"] and list(mobile)[8:] == ["stem"]
    assert list(rows_of(ENDS, 1, **SHAPE))[8:] == ["head"]
    assert list(rows_of(BOTTLENECK, 0, **SHAPE))[8:] == ["stem", "head"]
    assert plain["candidate"].tolist() == list(range(PLAIN.stages[0].size))
    for index, space in product((0, 1), (ENDS, VIT)):
        rows = rows_of(space, index, **SHAPE)
        assert rows.index.equals(pd.RangeIndex(len(rows))) and rows["score"].isna().all()
    kept = rows_of(VIT, 1, **SHAPE)
    assert (kept["in_width"] == kept["out_width"]).all() and set(kept["in_width"]) == {8, 12}
    assert len(kept) == VIT.stages[1].size


def test_a_resolution_that_is_not_offered_is_refused() -> None:
    with pytest.raises(SettingError, match=r"data\.resolution=7.*6, 8, 10"):
        arch_of(ENDS, [0, 0], 7)
