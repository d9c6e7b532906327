"""A predictor from an arch's code: one column a choice, exact on what adds up, and honest about its error."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tiny_ratings import SPACE

import nas_kd
from nas_kd.errors import SettingError
from nas_kd.ranking.chosen import chosen_scores
from nas_kd.ranking.config import RankConfig
from nas_kd.rate.scores import SCORES, Bench, predicted
from nas_kd.rate.scores.predicted import PREDICTED
from nas_kd.space import Arch
from nas_kd.supernet import predictor
from nas_kd.supernet.predictor import fit_predictor, one_hot


def archs_of(count: int, space: nas_kd.ElasticSpace = SPACE) -> list[Arch]:
    return list(dict.fromkeys(space.sample(seed) for seed in range(20 * count)))[:count]


def test_every_choice_has_a_column_and_what_is_not_there_has_none() -> None:
    """Two stages of two widths, two depths (at most 2 and 3) and two mids each; stem and head are a column each."""
    largest, smallest = one_hot(SPACE, [SPACE.largest(), SPACE.smallest()])
    ends = 2
    columns = ends + (2 + 2 + 2 * 2) + (2 + 2 + 3 * 2)
    assert len(largest) == columns
    assert int(largest.sum()) == ends + (1 + 1 + 2) + (1 + 1 + 3)
    assert int(smallest.sum()) == ends + (1 + 1 + 1) + (1 + 1 + 1)
    assert int((largest * smallest).sum()) == ends  # nothing else is alike
    codes = one_hot(SPACE, list(SPACE))
    assert len(codes.unique(dim=0)) == SPACE.size  # no two archs share a code


def test_a_unit_that_is_left_out_has_no_column(derived: Bench) -> None:
    space = derived.space
    codes = one_hot(space, [space.sample(seed) for seed in range(50)] + [space.largest()])
    removed = [sum(not stage.layers for stage in space.sample(seed).stages) for seed in range(50)]
    assert max(removed) > 0
    whole = int(codes[-1].sum())
    kept = sum(len(stage.fields) for stage in space.stages)
    assert whole == 2 + 2 * len(space.stages) + kept + bool(space.resolutions)
    for code, left_out in zip(codes, removed, strict=False):
        assert whole - int(code.sum()) == left_out  # one group of channels a unit


def test_what_adds_up_is_predicted_and_the_error_is_that_of_archs_it_has_not_seen() -> None:
    """The mean alone would be off by the deviation of all."""
    archs = archs_of(80)
    weights = np.random.default_rng(0).normal(size=one_hot(SPACE, archs).shape[1])
    values = one_hot(SPACE, archs).numpy() @ weights
    found = fit_predictor(SPACE, archs[:60], values[:60].tolist())
    off = found(archs[60:]) - values[60:]
    assert np.sqrt((off**2).mean()) < 0.35 * values.std() and found.tau > 0.7
    assert found.archs == 60 and found.held_out == 12
    # the reported error is of a predictor from 48 archs on 12 others: of the size of that on 20 further ones
    assert 0.3 < found.rmse / np.sqrt((off**2).mean()) < 3


def test_the_held_out_archs_are_not_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    archs = archs_of(30)
    values = np.random.default_rng(0).normal(size=30)
    learned: list[torch.Tensor] = []
    own = predictor._fitted

    def noted(codes: torch.Tensor, *rest: object) -> object:
        learned.append(codes)
        return own(codes, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(predictor, "_fitted", noted)
    first, again = (fit_predictor(SPACE, archs, values.tolist(), seed=2) for _ in range(2))
    assert [len(codes) for codes in learned] == [24, 30, 24, 30]
    seen = {tuple(code.tolist()) for code in learned[0]}
    assert sum(tuple(code.tolist()) not in seen for code in one_hot(SPACE, archs)) == 6
    assert np.array_equal(first(archs), again(archs)) and first.rmse == again.rmse


def test_what_cannot_be_fitted_is_said() -> None:
    archs = archs_of(12)
    with pytest.raises(SettingError, match="at least 10 measured archs"):
        fit_predictor(SPACE, archs[:9], [0.5] * 9)
    with pytest.raises(SettingError, match="values=nan.*finite"):
        fit_predictor(SPACE, archs, [0.5] * 11 + [float("nan")])
    flat = fit_predictor(SPACE, archs, [0.5] * 12)
    assert flat(archs) == pytest.approx(0.5, abs=0.05)


def test_the_score_learns_from_other_subnets_and_notes_its_error(
    bench: Bench, archs: list[Arch], monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(bench: Bench, archs: list[Arch]) -> list[float]:
        return [sum(stage.width for stage in arch.stages) / 20 for arch in archs]

    monkeypatch.setattr(predicted, "supernet_accuracy", planted)
    monkeypatch.setattr(predicted, "MEASURED", 40)
    values = SCORES["predicted"].measure(bench, archs)
    assert values == pytest.approx(planted(bench, archs), abs=0.2)
    assert 0 < bench.notes["predicted accuracy, error on held-out subnets"] < 0.2


def test_a_predictor_that_has_too_few_numbers_knows_nothing(
    bench: Bench, archs: list[Arch], monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(bench: Bench, archs: list[Arch]) -> list[float]:
        return [0.5 if number < 9 else math.nan for number, _ in enumerate(archs)]

    monkeypatch.setattr(predicted, "supernet_accuracy", planted)
    assert all(map(math.isnan, SCORES["predicted"].measure(bench, archs)))


def test_a_ranking_refuses_it_first_where_a_space_has_too_few_archs(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"primary": "supernet_kl", "control": "macs"}
    assert PREDICTED in chosen_scores(RankConfig(**settings), SPACE)[0]
    monkeypatch.setattr(predicted, "MEASURED", 9)
    with pytest.raises(SettingError, match=r"rank\.scores='predicted accuracy'.*learns from 10 archs, of 9 here"):
        chosen_scores(RankConfig(scores=["supernet_kl", "predicted", "macs"], **settings), SPACE)
    assert PREDICTED not in chosen_scores(RankConfig(**settings), SPACE)[0]


def test_texts_have_no_guidance_of_layers() -> None:
    settings = {"primary": "supernet_kl", "control": "macs"}
    with pytest.raises(SettingError, match=r"rank\.scores='teacher guidance'.*compares layers on images"):
        chosen_scores(RankConfig(scores=["supernet_kl", "tg", "macs"], **settings), SPACE, texts=True)
    every, left = ({*chosen_scores(RankConfig(**settings), SPACE, texts=texts)[0]} for texts in (False, True))
    assert every - left == {SCORES["tg"], SCORES["p_tg"]}
