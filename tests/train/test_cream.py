"""Cream: a board of the best paths, and subnets that learn from the one that answers most like them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_ratings import SPACE
from torch import Tensor

import nas_kd
from nas_kd.data import Data, load_data
from nas_kd.distill import Classification, Regression
from nas_kd.errors import SettingError
from nas_kd.losses import kl_divergence
from nas_kd.searcher.begin import read_archs
from nas_kd.searcher.trials import evaluated
from nas_kd.supernet import Supernet
from nas_kd.train.cream import BEGIN, GAP, Board, Cream, Prioritised
from nas_kd.train.loop import StepInfo
from nas_kd.train.rules import SubnetTarget
from nas_kd.train.sandwich import Images, teach
from nas_kd.train.supernet_config import SupernetConfig

COST = {"resolution": 8, "in_chans": 1, "num_classes": 3}
ARCHS = list(SPACE)


def macs(arch: Any) -> int:
    return SPACE.cost(arch, **COST).macs


def test_the_board_holds_the_best_by_quality_then_by_cost() -> None:
    board = Board(5)
    rng = np.random.default_rng(0)
    worst = -1.0
    for number, arch in enumerate(ARCHS[:100]):
        path = Prioritised(float(rng.integers(0, 20)) / 20, macs(arch), arch)
        before = list(board.paths)
        taken = board.note(path)
        order = [(-one.quality, one.macs) for one in board.paths]
        assert order == sorted(order) and len(board.paths) == min(number + 1, 5)
        if len(before) == 5:
            last = before[-1]
            wanted = path.quality > last.quality + GAP or (path.quality > last.quality and path.macs < last.macs)
            assert taken == wanted and set(board.paths) == (set(before[:-1]) | {path} if wanted else set(before))
            assert board.paths[-1].quality >= worst
            worst = board.paths[-1].quality
        else:
            assert taken
    again = Board(5)
    again.load_state_dict(board.state_dict())
    assert again.paths == board.paths


def test_a_path_that_is_trained_again_has_its_new_quality() -> None:
    board = Board(3)
    one, other = ARCHS[:2]
    board.note(Prioritised(0.9, macs(one), one))
    board.note(Prioritised(0.5, macs(other), other))
    board.note(Prioritised(0.1, macs(one), one))
    assert [path.arch for path in board.paths] == [other, one] and board.paths[1].quality == 0.1


@pytest.mark.parametrize("quality", [float("nan"), float("inf"), float("-inf")])
def test_a_quality_that_is_no_number_stays_off_the_board(quality: float) -> None:
    board = Board(2)
    one, other = ARCHS[:2]
    assert not board.note(Prioritised(quality, macs(one), one)) and not board.paths
    board.note(Prioritised(0.9, macs(one), one))
    board.note(Prioritised(0.5, macs(other), other))
    assert not board.note(Prioritised(quality, macs(ARCHS[2]), ARCHS[2]))
    assert not board.note(Prioritised(quality, macs(one), one))  # what it was before says nothing any more
    assert [path.arch for path in board.paths] == [other]


def rule(board: Board, **settings: Any) -> Cream:
    return Cream(SPACE, board, macs, seed=3, **settings)


def logits_of(archs: Any) -> Tensor:
    found = [torch.randn(6, 3, generator=torch.Generator().manual_seed(ARCHS.index(arch))) for arch in archs]
    return torch.stack(found)


def test_the_path_of_least_kl_teaches() -> None:
    board = Board(4)
    for arch in ARCHS[:4]:
        board.note(Prioritised(0.5, macs(arch), arch))
    cream = rule(board, subnets=3, weight=0.7)
    info = StepInfo(0, 5, 0.0)  # before paths come to the board
    archs = cream.archs(info)
    taught = cream.taught(info, logits_of, lambda logits: 1.0, lambda values: values)
    assert len(board.paths) == 4 and len(taught) == 3
    for arch, (subnet, target) in zip(archs, taught, strict=True):
        (own,) = logits_of([arch])
        others = [path.arch for path in board.paths if path.arch != arch]
        nearest = min(others, key=lambda one: float(kl_divergence(own, logits_of([one])[0])))
        assert target is not None and torch.equal(target, logits_of([nearest])[0])
        assert subnet == SubnetTarget(arch, 1.0, 0.7)


def test_the_nearest_numbers_teach_where_labels_are_numbers() -> None:
    board = Board(4)
    for place, arch in enumerate(ARCHS[:4]):
        board.note(Prioritised(0.5 - place, macs(arch), arch))
    cream = rule(board)
    (own,) = cream.archs(StepInfo(0, 5, 0.0))
    numbers = {arch: float(place) for place, arch in enumerate(ARCHS[:4])} | {own: 1.9}

    def answers(archs: Any) -> Tensor:
        return torch.stack([torch.full((6, 1), numbers[arch]) for arch in archs])

    how: Any = (answers, lambda logits: 1.0, lambda values: values)
    ((_, target),) = cream.taught(StepInfo(0, 5, 0.0), *how, Regression().divergence)
    assert own not in ARCHS[:4] and target is not None and torch.equal(target, torch.full((6, 1), 2.0))


def test_without_a_board_labels_teach_and_paths_come_after_a_sixth() -> None:
    cream = rule(Board(2))
    ((subnet, target),) = cream.taught(StepInfo(0, 0, 0.0), logits_of, lambda logits: 0.3, lambda values: values)
    assert target is None and subnet.soft == 0.0 and not cream.board.paths
    cream.taught(StepInfo(0, 1, BEGIN), logits_of, lambda logits: 0.3, lambda values: values)
    ((arch,),) = [cream.archs(StepInfo(0, 1, BEGIN))]
    assert cream.board.paths == [Prioritised(pytest.approx(0.3), macs(arch), arch)]  # type: ignore[arg-type]


def test_a_subnet_learns_from_labels_and_its_path() -> None:
    """The gradient is that of the label loss plus the weighted KL to given logits; scale multiplies it."""
    net = Supernet(SPACE, num_classes=3, in_chans=1, seed=0).train()
    x = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = torch.arange(6) % 3
    (target,) = logits_of(ARCHS[:1])
    task = Classification(smoothing=0.0)

    def gradients(loss: Tensor | None = None, **how: Any) -> list[Tensor]:
        net.zero_grad()
        if loss is None:
            subnet = SubnetTarget(ARCHS[7], 1.0, 0.7)
            teach(net, Images(x), y, [subnet], task=task, divergence=kl_divergence, target=target, **how)
        else:
            loss.backward()
        return [p.grad.clone() for p in net.parameters() if p.grad is not None]

    logits = net(x, ARCHS[7])
    wanted = gradients(task.loss(logits, y) + 0.7 * kl_divergence(logits, target))
    for one, half, by_hand in zip(gradients(), gradients(scale=0.5), wanted, strict=True):
        assert torch.allclose(one, by_hand, atol=1e-6) and torch.allclose(2 * half, one, atol=1e-6)


@pytest.fixture(scope="module")
def few() -> Data:
    return load_data("digits", subset=140, rate=20, select=20)


def test_the_board_is_written_and_a_search_scores_its_paths_first(few: Data, tmp_path: Path) -> None:
    space = nas_kd.load_space("digits")
    net = Supernet(space, num_classes=10, in_chans=1, seed=0)
    how: dict[str, Any] = {"rule": "cream", "board": 3, "epochs": 3, "warmup_epochs": 0.5, "batch_size": 16}
    nas_kd.train_supernet(net, few, run=tmp_path, **how)
    rows = json.loads((tmp_path / "supernet/board.json").read_text())["paths"]
    assert len(rows) == 3 and [row["quality"] for row in rows] == sorted((row["quality"] for row in rows), reverse=True)
    file = str(tmp_path / "supernet/board.json")
    board = read_archs(file, space)
    assert [arch.to_dict() for arch in board] == [row["arch"] for row in rows]
    settings = {"engine": "random", "max_macs": "100%", "trials": 5, "epochs": 0, "calibration_images": 16}
    found = nas_kd.search(net, None, few, first=file, run=tmp_path, **settings)
    assert evaluated(found.frame())["key"].tolist()[:3] == [arch.key for arch in board]
    log = tmp_path / "log.txt"
    assert not log.exists() or "search.first" not in log.read_text()
    costs = sorted(space.cost(arch, resolution=8, in_chans=1, num_classes=10).macs for arch in board)
    tight = settings | {"engine": "coarse", "max_macs": costs[0], "trials": 2}
    found_too = nas_kd.search(net, None, few, first=file, run=tmp_path / "tight", **tight)
    taken = set(evaluated(found_too.frame())["key"])
    (line,) = [one for one in (tmp_path / "tight/log.txt").read_text().splitlines() if "search.first" in one]
    left = [arch for arch in board if arch.key not in taken]
    assert f"{len(left)} of 3 archs are not scored" in line and all(arch.key in line for arch in left)
    over, _, others = line.partition(": over the budget")
    for arch in left:
        dear = space.cost(arch, resolution=8, in_chans=1, num_classes=10).macs > costs[0]
        assert arch.key in (over if dear else others)
    best = str(tmp_path / "search/best.json")
    assert read_archs(best, space) == [found.best]
    with pytest.raises(SettingError, match=r"search\.first"):
        nas_kd.search(net, None, few, first=best, run=tmp_path, **settings)
    assert pd.read_csv(tmp_path / "supernet/metrics.csv")["loss"].notna().all()
    with pytest.raises(SettingError, match=r"search\.first=.*archs of tiny"):
        read_archs(file, SPACE)
    with pytest.raises(SettingError, match=r"search\.first='nowhere'"):
        read_archs("nowhere", space)
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(SettingError, match=r"search\.first=.*board\.json"):
        read_archs(str(tmp_path / "other.json"), space)


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(SettingError, match=r"supernet\.board"):
        Board(0)
    with pytest.raises(SettingError, match=r"supernet\.teacher_weight"):
        SupernetConfig(rule="cream", teacher_weight=0.5)
