"""Rankings and tuned subnets of text encoders: they learn with AdamW at an encoder's rates, as students do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import nas_kd
from nas_kd.data import Data
from nas_kd.ranking.config import RankConfig
from nas_kd.rate.scores.short import tuning_of
from nas_kd.teacher import Teacher

pytest.importorskip("transformers")


def test_archs_of_an_encoder_are_ranked(text_teacher: Teacher, review_data: Data, tmp_path: Path) -> None:
    space = nas_kd.teacher_space(text_teacher, review_data)
    found = nas_kd.rank(
        space,
        text_teacher,
        review_data,
        run=tmp_path,
        net=nas_kd.Supernet(space),
        control="macs",
        bands=[],
        overall=8,
        seeds=1,
        epochs=1,
        resamples=100,
    )
    assert len(found.truth) == 8 and found.scores["value"].notna().all()
    assert {"tuned subnet", "short training", "units noise to signal"} <= set(found.summary["score"])
    plan = json.loads((tmp_path / "rank" / "plan.json").read_text())
    assert (plan["rank.optimizer"], plan["rank.lr"], plan["rank.warmup_epochs"]) == ("adamw", 1e-4, 0.1)


def test_a_subnet_is_tuned_with_the_rates_of_its_kind(review_data: Data) -> None:
    images = nas_kd.load_data("digits", subset=100)
    assert (tuning_of(images).get("optimizer", "sgd"), tuning_of(images)["lr"]) == ("sgd", 0.02)
    assert (tuning_of(review_data)["optimizer"], tuning_of(review_data)["lr"]) == ("adamw", 1e-4)


@pytest.mark.parametrize(
    ("inherited", "texts", "expected"),
    [
        (False, False, ("sgd", 0.05, 1.0)),
        (True, False, ("sgd", 0.01, 0.1)),
        (False, True, ("adamw", 5e-4, 1.0)),
        (True, True, ("adamw", 1e-4, 0.1)),
    ],
)
def test_null_becomes_what_the_archs_begin_with(
    inherited: bool, texts: bool, expected: tuple[str, float, float]
) -> None:
    found = RankConfig().settled(inherited=inherited, texts=texts)
    assert (found.optimizer, found.lr, found.warmup_epochs) == expected
    given = RankConfig(optimizer="lamb", lr=0.3, warmup_epochs=0.0).settled(inherited=inherited, texts=texts)
    assert (given.optimizer, given.lr, given.warmup_epochs) == ("lamb", 0.3, 0.0)
