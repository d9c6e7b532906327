"""Rating tables of another space or teacher, with holes, with weights; a stage without a choice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nas_kd import exact_front, rate_blockwise, search
from nas_kd.blocks import BasicStage, ConvStem, LinearHead
from nas_kd.data import Data
from nas_kd.errors import SettingError
from nas_kd.runtime.device import Runtime
from nas_kd.searcher.ratings import usable_ratings
from nas_kd.space import ElasticSpace
from nas_kd.space.rows import rows_of
from nas_kd.space.tables import mark
from nas_kd.supernet import Supernet
from nas_kd.teacher import Teacher, load_teacher

Tables = list[pd.DataFrame]


@pytest.fixture
def usable(space: ElasticSpace, data: Data) -> Callable[..., Tables]:
    def call(tables: Tables, **more: Any) -> Tables:
        return usable_ratings(tables, space, data, "teacher-hash", **more)

    return call


def test_rows_without_a_score_are_named_counted_and_never_the_best(
    usable: Callable[..., Tables], tables: Tables, capsys: Any
) -> None:
    holed = [table.copy() for table in tables]
    best = holed[1].nsmallest(3, "score").index
    holed[1].loc[best, "score"] = [np.nan, -np.inf, np.inf]  # minus infinity is no score either
    found = usable(holed)
    assert [len(t) for t in found] == [len(tables[0]), len(tables[1]) - 3] and not set(best) & set(found[1].index)
    said = capsys.readouterr().err
    assert f"stage 2: 3 of {len(tables[1])} rows have no score and are dropped" in said
    assert all(f"{row.in_width} > {row.label}" in said for row in holed[1].loc[best].itertuples())
    assert not set(exact_front(found)["row_2"]) & set(best)
    with pytest.raises(SettingError, match=r"tables\[1\]\.score.*finite"):
        usable([tables[0], tables[1].assign(score=np.nan)])


def test_tables_of_another_space_or_teacher_are_refused(
    usable: Callable[..., Tables], tables: Tables, space: ElasticSpace, cost: dict[str, int]
) -> None:
    for name in ("space", "teacher"):
        marked = [tables[0], tables[1].assign(**{name: "another e0b7"})]
        with pytest.raises(SettingError, match=rf"tables\[1\]\.{name}='another e0b7'"):
            usable(marked)
    marks = {"space": mark(space.name, space.hash), "teacher": mark("its name", "teacher-hash")}
    assert len(usable([table.assign(**marks) for table in tables])) == 2
    # without a mark the costs tell: the same widths and candidates with other strides
    other = ElasticSpace(
        "other",
        ConvStem(width=4),
        (BasicStage(widths=(4, 6), depths=(1, 2), mids=(2, 4), stride=1), space.stages[1]),
        LinearHead(),
        resolution=8,
    )
    foreign = [rows_of(other, index, **cost).assign(score=1.0, images=48) for index in range(2)]
    with pytest.raises(SettingError, match=r"tables\[0\]\.macs.*another space"):
        usable(foreign)
    with pytest.raises(SettingError, match="2 tables, one per stage of tiny"):
        usable(tables[:1])
    with pytest.raises(SettingError, match=r"tables\[0\]\.candidate"):
        usable([tables[0].drop(columns="candidate"), tables[1]])


def test_weights_multiply_the_scores_of_their_stage(usable: Callable[..., Tables], tables: Tables) -> None:
    found = usable(tables, weights=[0.5, 4.0])
    for table, other, weight in zip(tables, found, (0.5, 4.0), strict=True):
        assert other["score"].tolist() == (weight * table["score"]).tolist()
    front = exact_front(found)
    for _, row in front.iterrows():
        wanted = 0.5 * tables[0].loc[row["row_1"], "score"] + 4.0 * tables[1].loc[row["row_2"], "score"]
        assert row["score"] == pytest.approx(wanted)
    for bad in ([1.0], [1.0, -1.0], [0.0, 0.0], [1.0, float("nan")], "sensitivity", {"a": 1, "b": 2}, ["1", "2"], 5):
        with pytest.raises(SettingError, match=r"search\.weights"):
            usable(tables, weights=bad)


def test_rated_tables_say_whose_they_are(net: Supernet, teacher: Teacher, data: Data, runtime: Runtime) -> None:
    settings: dict[str, Any] = {"epochs": 1, "batch_size": 16, "runtime": runtime, "calibration_images": 32}
    tables = rate_blockwise(net, teacher, data, **settings)
    other = load_teacher("cifar_resnet8", num_classes=data.num_classes, in_chans=data.in_chans)
    more: dict[str, Any] = {"trials": 2, "epochs": 0, "runtime": runtime, "calibration_images": 32}
    assert search(net, teacher, data, tables, **more).best
    wrong: dict[str, list[Any]] = {
        "trials": [0, 2.5],
        "top": [0, -1, 1.5],
        "rounds": [0, 2.5],
        "epochs": [-1, 0.5],
        "tuned": [-1],
        "calibration_images": [0],
        "rate_images": [0],
        "max_latency_ms": [float("nan"), -1.0, 0.0, "5", float("inf")],
    }
    for name, values in wrong.items():
        for value in values:
            with pytest.raises(SettingError, match=rf"search\.{name}"):
                search(net, teacher, data, tables, **more | {name: value})
    with pytest.raises(SettingError, match=r"tables\[0\]\.teacher"):
        search(net, other, data, tables, **more)
    elsewhere = ElasticSpace("elsewhere", net.space.stem, net.space.stages[:1] * 2, LinearHead(), resolution=8)
    with pytest.raises(SettingError, match=r"tables\[0\]\.space"):
        search(Supernet(elsewhere, 3, 1), teacher, data, tables, **more)


def test_a_stage_with_one_candidate_is_rated_and_searched(
    teacher: Teacher, data: Data, runtime: Runtime, capsys: Any
) -> None:
    fixed = BasicStage(widths=(6,), depths=(1,), mids=(4,), stride=2)
    free = BasicStage(widths=(6, 8), depths=(1, 2), mids=(2, 4), stride=2)
    space = ElasticSpace("fixed", ConvStem(width=4), (fixed, free), LinearHead(), resolution=8)
    net = Supernet(space, data.num_classes, data.in_chans)
    tables = rate_blockwise(net, teacher, data, epochs=2, batch_size=16, runtime=runtime, calibration_images=32)
    assert "stage 1: 1 rows all rated, nothing to choose" in capsys.readouterr().err
    more: dict[str, Any] = {"trials": 4, "epochs": 0, "runtime": runtime, "calibration_images": 32}
    result = search(net, teacher, data, tables, max_macs=None, **more)
    assert result.best.stages[0] == fixed.candidates()[0]
    assert "stage 1 has one candidate" in capsys.readouterr().err
