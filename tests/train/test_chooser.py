"""BestUp by a predictor: the loss chooses until subnets were measured, then what is expected of each candidate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from tiny_ratings import SPACE
from torch import Tensor

from nas_kd.errors import SettingError
from nas_kd.space import Arch
from nas_kd.train import attentive
from nas_kd.train.attentive import Attentive, Chooser, MacsTable
from nas_kd.train.loop import StepInfo
from nas_kd.train.supernet_config import SupernetConfig


def width(arch: Arch) -> float:
    return float(sum(stage.width for stage in arch.stages))


@pytest.fixture
def chooser(monkeypatch: pytest.MonkeyPatch) -> Chooser:
    monkeypatch.setattr(attentive, "MEASURED", 40)
    return Chooser(SPACE, seed=1)


@pytest.mark.parametrize("best", [True, False])
def test_the_loss_chooses_first_and_the_predictor_when_it_has_learned(chooser: Chooser, best: bool) -> None:
    table = MacsTable(SPACE, 3, 1, 8, seed=2, size=400, bins=4)
    rule = Attentive(SPACE, 3, 2, table=table, candidates=6, best=best, chooser=chooser)
    asked: list[list[Arch]] = []

    def score(archs: Sequence[Arch]) -> Tensor:
        asked.append(list(archs))
        return torch.tensor([width(arch) for arch in archs])

    info = StepInfo(0, 4, 0.1)
    first = rule.archs(info, score)
    choose = min if best else max  # of losses, low is good
    assert [width(arch) for arch in first[2:]] == [choose(map(width, drawn)) for drawn in asked] and len(asked) == 2
    assert len(chooser.archs) == 40
    predictor = chooser.learn([width(arch) for arch in chooser.archs])
    assert predictor.rmse < 2.0  # widths are 12 to 20
    asked.clear()
    second = rule.archs(info, score)
    assert not asked  # nothing is run
    drawn = [table.draw(6, 3, "attentive", 0, 4, k) for k in range(2)]
    choose = max if best else min
    assert [predictor([arch])[0] for arch in second[2:]] == pytest.approx(
        [choose(predictor(archs)) for archs in drawn], rel=1e-5
    )


def test_a_checkpoint_has_what_was_measured(chooser: Chooser) -> None:
    again = Chooser(SPACE, seed=1)
    again.load_state_dict(chooser.state_dict())
    assert again.predictor is None
    chooser.learn([width(arch) for arch in chooser.archs])
    again.load_state_dict(chooser.state_dict())
    assert again.predictor is not None and chooser.predictor is not None
    assert np.array_equal(again.predictor(chooser.archs), chooser.predictor(chooser.archs))


def test_other_rules_choose_nothing() -> None:
    with pytest.raises(SettingError, match=r"supernet\.chooser='predictor'.*bestup"):
        SupernetConfig(chooser="predictor")
