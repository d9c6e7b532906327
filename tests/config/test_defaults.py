"""Defaults never make a legal value of another setting illegal: they give way."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
import torch
import yaml

import nas_kd
from nas_kd.config.settings import build, setting_error, settings_of
from nas_kd.data.config import DataConfig
from nas_kd.errors import SettingError
from nas_kd.pipeline.config import Config
from nas_kd.pipeline.given import Given
from nas_kd.searcher.budget import upper_bounds
from nas_kd.searcher.config import SearchConfig
from nas_kd.train.config import RetrainConfig
from nas_kd.train.supernet_config import SupernetConfig
from nas_kd.train.teacher_config import TeacherConfig

VALUES = (0, 1, 2, 3, 5, 8, 0.0, 1e-3, 0.1, 0.5, 0.9, 0.95, 0.96, 0.99, 1.0, 1.5)
# by what they are, no value goes alone: a share of nothing, a method, a part of a list that is not given
NOT_ALONE = ("search.max_macs", "search.max_params", "search.min_macs", "search.min_params", "retrain.method")
NOT_ALONE += ("rank.limit",)
NUMBERS = [
    (name, value)
    for name, (kind, own) in settings_of(Config).items()
    for value in VALUES
    if name not in NOT_ALONE and setting_error(kind, own, value) is None
    if (name, value) != ("supernet.epochs", 0)  # weights must come from somewhere
]


def test_there_are_numbers_of_every_section() -> None:
    sections = {name.partition(".")[0] for name, _ in NUMBERS if "." in name}
    assert sections == {"data", "teacher", "derive", "repair", "supernet", "blockwise", "search", "retrain", "rank"}
    assert len({name for name, _ in NUMBERS}) > 80


@pytest.mark.parametrize("name", dict.fromkeys(name for name, _ in NUMBERS))
def test_each_number_alone_is_legal(name: str) -> None:
    section, _, own = name.rpartition(".")
    for value in (value for one, value in NUMBERS if one == name):
        config = build(Config, {name: value})
        assert getattr(getattr(config, section) if section else config, own) == value


@pytest.mark.parametrize(
    ("given", "rate", "select"),
    [
        ({"rate": 0.96}, 0.96, 0.02),
        ({"select": 0.98}, 0.01, 0.98),
        ({"rate": 0.9}, 0.9, 0.05),
        ({"rate": 0.97, "select": 0.02}, 0.97, 0.02),
    ],
)
def test_the_share_that_was_not_given_shrinks(given: dict[str, float], rate: float, select: float) -> None:
    config = DataConfig(**given)
    assert (config.rate, config.select) == (pytest.approx(rate), pytest.approx(select))
    assert DataConfig(**yaml.safe_load(yaml.safe_dump(asdict(config)))) == config


def test_two_given_shares_are_not_changed() -> None:
    with pytest.raises(SettingError, match="data.rate=0.99"):
        DataConfig(rate=0.99, select=0.02)


@pytest.mark.parametrize(
    ("config", "images", "parts", "size"),
    [
        (RetrainConfig(), 1000, 1, 128),
        (RetrainConfig(), 100, 1, 100),
        (RetrainConfig(), 100, 2, 100),
        (RetrainConfig(), 101, 2, 100),
        (RetrainConfig(mixup=0.1), 101, 1, 100),
        (RetrainConfig(mixup=0.1), 103, 2, 100),
        (RetrainConfig(batch_size=200), 100, 1, 200),
        (TeacherConfig(epochs=1), 40, 1, 40),
        (SupernetConfig(accumulate=3), 1000, 3, 63),
        (SupernetConfig(accumulate=3), 50, 3, 48),
        (SupernetConfig(batch_size=65, accumulate=3), 1000, 3, 65),
    ],
)
def test_a_default_batch_fits_the_images_and_a_given_one_stays(
    config: RetrainConfig, images: int, parts: int, size: int
) -> None:
    assert config.fitted(images, parts).batch_size == size


def test_few_images_train_everything_with_default_batches() -> None:
    x = torch.randint(0, 256, (60, 1, 8, 8), dtype=torch.uint8)
    data = nas_kd.load_data((x, torch.arange(60) % 3), test=(255 - x[:6], torch.arange(6) % 3), rate=6, select=6)
    space = nas_kd.load_space("digits")
    teacher = nas_kd.train_teacher("cifar_resnet8", data, epochs=1)
    net = nas_kd.Supernet(space, num_classes=3, in_chans=1)
    nas_kd.train_supernet(net, data, epochs=1, accumulate=3)
    nas_kd.retrain(space.smallest(), teacher, data, space=space, epochs=1, mixup=0.2)
    cuts = nas_kd.Supernet(nas_kd.teacher_space(teacher, data))
    nas_kd.repair_units(cuts, teacher, data)
    with pytest.raises(SettingError, match="retrain.batch_size=49: expected 1 to 48"):
        nas_kd.retrain(space.smallest(), teacher, data, space=space, epochs=1, batch_size=49)


def test_the_default_budget_gives_way_to_a_larger_minimum() -> None:
    data = nas_kd.load_data("digits", subset=200)
    space = nas_kd.load_space("digits")
    most = space.cost(space.largest(), resolution=8, in_chans=1, num_classes=10).macs
    default = SearchConfig().max_macs
    assert upper_bounds(space, data, default, None) == {"macs": int(0.6 * most)}
    assert upper_bounds(space, data, default, None, None, "50%") == {"macs": int(0.6 * most)}
    assert upper_bounds(space, data, default, None, None, "70%") == {}
    assert SearchConfig(min_macs="70%").larger == "70%" and SearchConfig(max_macs="65%", min_macs="70%").larger is None
    settings: dict[str, Any] = {"space": "digits", "search.min_macs": "70%", "teacher.model": None}
    given = Given(build(Config, settings | {"data.subset": 200}))
    assert given.upper == {} and given.lower == {"macs": pytest.approx(0.7 * most, abs=1)}
