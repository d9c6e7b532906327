"""Settings: defaults are legal, what is not legal is named, budgets are exact."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from nas_kd.config.settings import Settings, fields_of, help_of, settings_of
from nas_kd.data.config import DataConfig, DataSettings
from nas_kd.errors import SettingError
from nas_kd.pipeline.config import Config
from nas_kd.pipeline.read_config import read_config
from nas_kd.ranking.config import RankConfig, RankSettings
from nas_kd.rate.errors import ERRORS
from nas_kd.searcher.amounts import parse_budget
from nas_kd.searcher.config import SearchConfig, SearchSettings
from nas_kd.train.blockwise_config import BlockwiseConfig, BlockwiseSettings
from nas_kd.train.config import RetrainConfig, RetrainSettings, TrainingConfig, TrainingSettings
from nas_kd.train.repair_config import RepairConfig, RepairSettings
from nas_kd.train.supernet_config import SupernetConfig, SupernetSettings
from nas_kd.train.teacher_config import TeacherConfig, TeacherSettings

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.mark.parametrize(
    ("value", "largest", "expected"),
    [
        ("60%", 11_000_001, 6_600_000),
        ("100%", 7, 7),
        ("0.1%", 1000, 1),
        (" 12.5 %", 1000, 125),
        (5, 1, 5),
        (6.5e6, 1, 6_500_000),
        ("12e6", 1, 12_000_000),
        ("2.3M", 1, 2_300_000),
        ("1.1G", 1, 1_100_000_000),
        ("300k", 1, 300_000),
        ("12_000", 1, 12_000),
    ],
)
def test_budget(value: str | int | float, largest: int, expected: int) -> None:
    found = parse_budget(value, largest, "search.max_macs")
    assert found == expected and isinstance(found, int)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "%",
        "abc",
        "60%%",
        "-5%",
        "0%",
        "101%",
        0,
        -3,
        0.6,
        "0.6",
        math.nan,
        math.inf,
        "nan",
        True,
        "5X",
        "M",
    ],
)
def test_bad_budget(value: str | int | float) -> None:
    with pytest.raises(SettingError) as caught:
        SearchConfig(max_macs=value)
    assert caught.value.field == "search.max_macs" and caught.value.value is value
    assert caught.value.hint


def test_a_share_written_as_a_fraction_gets_the_share_as_mend() -> None:
    with pytest.raises(SettingError, match="use search.max_params=60%"):
        SearchConfig(max_params=0.6)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (DataConfig, "rate", 1.0),
        (DataConfig, "select", -0.1),
        (DataConfig, "views", -1),
        (DataConfig, "resolution", 0),
        (DataConfig, "memory_gib", math.nan),
        (TeacherConfig, "epochs", -1),
        (TeacherConfig, "lr", 0.0),
        (SupernetConfig, "epochs", 0),
        (SupernetConfig, "epochs", -3),
        (SupernetConfig, "lr", math.inf),
        (SupernetConfig, "schedule", "cosin"),
        (SupernetConfig, "rule", "sandwhich"),
        (SupernetConfig, "order", "first"),
        (SupernetConfig, "random_subnets", -1),
        (SupernetConfig, "candidates", 0),
        (SupernetConfig, "kd_ratio", -0.5),
        (SupernetConfig, "full_teacher", "thawed"),
        (SupernetConfig, "alpha", math.inf),
        (SupernetConfig, "accumulate", 0),
        (SupernetConfig, "divergence", "beta"),
        (SupernetConfig, "choose", "all"),
        (SupernetConfig, "reduction", "max"),
        (SupernetConfig, "teacher_weight", 1.5),
        (SupernetConfig, "ema", 1.0),
        (SupernetConfig, "warmup_epochs", 30.0),
        (BlockwiseConfig, "paths", 0),
        (BlockwiseConfig, "init", "random"),
        (BlockwiseConfig, "sampling", "unfair"),
        (RepairConfig, "epochs", -1),
        (RepairConfig, "choices", 0),
        (SearchConfig, "trials", 0),
        (SearchConfig, "rerate", -1),
        (SearchConfig, "max_latency_ms", 0.0),
        (SearchConfig, "sampler", "tpee"),
        (RetrainConfig, "seeds", 0),
        (RetrainConfig, "init", "imagenet"),
        (RetrainConfig, "band", 0.0),
        (RetrainConfig, "warmup_epochs", 99.0),
        (Config, "workers", 0),
        (Config, "threads", 0),
        (Config, "device", "gpu"),
        (Config, "precision", "fp16"),
    ],
)
def test_out_of_range_is_named(kind: type, name: str, value: object) -> None:
    with pytest.raises(SettingError) as caught:
        kind(**{name: value})
    prefix = "" if kind is Config else kind.__name__.removesuffix("Config").lower() + "."
    assert caught.value.field == prefix + name
    assert caught.value.value is value and caught.value.expected


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:SECRET@h:5432/db", "postgresql://me@h:5432/db"),
        ("postgresql://me:12/RET#SEC?RET@h/db", "postgresql://me@h/db"),
        ("postgresql://me:SEC@RET@h/db", "postgresql://me@h/db"),
        ("postgresql://me@h/db?password=SECRET", "postgresql://me@h/db"),
        ("postgresql://h/db?user=me&p%61ssword=SECRET&sslmode=require", "postgresql://h/db?user=me&sslmode=require"),
        ("postgresql://h/db?sslpassword=SECRET&sslkey=a.key#&PASSWORD=SECRET", "postgresql://h/db?sslkey=a.key#"),
        ("mysql+pymysql://me:SECRET@h/db?passwd=SECRET", "mysql+pymysql://me@h/db"),
        ("postgresql://h/db?passfile=%2Fa%2Fb&options=a@b", "postgresql://h/db?passfile=%2Fa%2Fb&options=a@b"),
        ("postgresql://me@[::1]:5432/db", "postgresql://me@[::1]:5432/db"),
    ],
)
def test_no_password_of_a_database_is_written(url: str, shown: str) -> None:
    config = Config(search=SearchConfig(storage=url))
    assert config.search.storage == url  # this process connects with it
    text = config.to_yaml()
    assert yaml.safe_load(text)["search"]["storage"] == shown and "SEC" not in text and "RET" not in text


def test_a_refused_database_is_named_without_its_passwords() -> None:
    with pytest.raises(SettingError, match="postgresql://USER@HOST/DATABASE, or null") as caught:
        SearchConfig(storage="sqlite://me:SECRET@/a.db?mode=ro&password=SECRET")
    assert "sqlite://me@/a.db?mode=ro" in str(caught.value) and "SECRET" not in str(caught.value)


def test_splits_leave_something_to_train_on() -> None:
    with pytest.raises(SettingError, match="data.rate"):
        DataConfig(rate=0.5, select=0.5)


def test_exponential_schedule_needs_an_end_above_zero() -> None:
    with pytest.raises(SettingError, match="supernet.final_lr"):
        SupernetConfig(schedule="exponential")
    SupernetConfig(schedule="exponential", final_lr=0.05)


def test_settings_of_one_rule_are_refused_with_another() -> None:
    for settings, field in (
        ({"rule": "shrinking", "ema": 0.9}, "supernet.ema"),
        ({"rule": "uniform", "random_subnets": 0}, "supernet.random_subnets"),
        ({"alpha": 0.5, "divergence": "js"}, "supernet.alpha"),
    ):
        with pytest.raises(SettingError, match=field):
            SupernetConfig(**settings)  # type: ignore[arg-type]
    for rule in ("sandwich", "bestup", "worstup", "shrinking", "uniform", "fair", "cream"):
        config = read_config(["--supernet.rule", rule, "--supernet.alpha", "0.5", "--supernet.compile", "true"])
        assert config is not None
        assert (config.supernet.rule, config.supernet.alpha, config.supernet.compile) == (rule, 0.5, True)


def test_a_teacher_with_random_weights_is_refused() -> None:
    with pytest.raises(SettingError, match="teacher.checkpoint"):
        TeacherConfig(model="resnet50").need_weights()
    for settings in (
        {"checkpoint": "a.safetensors"},
        {"pretrained": True},
        {"epochs": 3},
        {"model": "package.module:factory"},
        {"model": "runs/a/student"},
    ):
        TeacherConfig(**settings).need_weights()  # type: ignore[arg-type]


def test_every_setting_is_explained() -> None:
    """The line below a field is its help: none may be missing."""
    for name, (kind, own) in settings_of(Config).items():
        assert len(help_of(kind, own)) > 4, name


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("**/*.yaml")), ids=lambda path: path.stem)
def test_the_experiments_configs_load(path: Path) -> None:
    assert read_config([str(path)]) is not None


def test_the_published_cifar100_recipe() -> None:
    config = read_config([str(EXPERIMENTS / "cifar100_table.yaml")])
    assert config is not None
    for settings in (config.retrain, config.teacher):
        assert (settings.epochs, settings.batch_size, settings.lr, settings.warmup_epochs) == (240, 64, 0.05, 0)
        assert (settings.optimizer, settings.momentum, settings.weight_decay) == ("momentum", 0.9, 5e-4)
        assert (settings.schedule, settings.milestones, settings.factor) == ("step", [150, 180, 210], 0.1)
    assert (config.data.pad, config.data.flip, config.data.views) == (4, True, "all")


def test_yaml_round_trip(tmp_path: Path) -> None:
    config = Config(
        run="somewhere",
        seed=7,
        teacher=TeacherConfig(
            stages=["layer1", "layer2"], mean=[0.1, 1e-05], std=[1.0, 0.2], checkpoint="weights.safetensors"
        ),
        search=SearchConfig(max_macs="12M", max_params=5e5, max_latency_ms=1e-3),
    )
    path = tmp_path / "c.yaml"
    path.write_text(config.to_yaml())
    assert yaml.safe_load(path.read_text()) == json.loads(json.dumps(dataclasses.asdict(config)))
    assert read_config([str(path)]) == config


def test_names_that_are_checked_without_torch_are_those_there_are() -> None:
    from nas_kd.config.names import names_in_tables
    from nas_kd.distill import METHODS, TERMS
    from nas_kd.rate.scores import SCORES

    assert set(names_in_tables("distill/methods", "Entry")) == set(METHODS)
    assert set(names_in_tables("distill/terms.py", "Term")) == set(TERMS)
    assert names_in_tables("rate/scores", "Score") == tuple(SCORES)
    assert typing.get_args(typing.get_type_hints(BlockwiseConfig)["error"]) == tuple(ERRORS)


@pytest.mark.parametrize(
    ("kind", "keywords", "own"),
    [
        (DataConfig, DataSettings, {"train", "test"}),
        (TrainingConfig, TrainingSettings, set()),
        (TeacherConfig, TeacherSettings, {"model"}),
        (SupernetConfig, SupernetSettings, set()),
        (BlockwiseConfig, BlockwiseSettings, set()),
        (RepairConfig, RepairSettings, set()),
        (SearchConfig, SearchSettings, set()),
        (RetrainConfig, RetrainSettings, set()),
        (RankConfig, RankSettings, set()),
    ],
)
def test_keywords_are_typed_as_the_settings_are(kind: type[Settings], keywords: Any, own: set[str]) -> None:
    """But for what a function takes by itself, because it may be an object there."""
    given = typing.get_type_hints(keywords)
    wanted = {name: hint for name, hint in typing.get_type_hints(kind).items() if name in fields_of(kind)}
    assert given == {name: hint for name, hint in wanted.items() if name not in own}


@pytest.mark.parametrize(
    "name",
    ["load_data", "train_teacher", "train_supernet", "rate_blockwise", "repair_units", "search", "retrain", "rank"],
)
def test_functions_show_their_settings(name: str) -> None:
    import nas_kd

    kinds = {
        "load_data": DataConfig,
        "train_teacher": TeacherConfig,
        "train_supernet": SupernetConfig,
        "rate_blockwise": BlockwiseConfig,
        "repair_units": RepairConfig,
        "search": SearchConfig,
        "retrain": RetrainConfig,
        "rank": RankConfig,
    }
    function = getattr(nas_kd, name)
    shown = inspect.signature(function).parameters
    for field in dataclasses.fields(kinds[name]):
        assert field.name in shown
        if field.name not in ("train", "test", "model"):
            default = field.default if field.default is not dataclasses.MISSING else field.default_factory()
            assert shown[field.name].default == default
            assert f"{field.name}: {help_of(kinds[name], field.name)[:20]}" in function.__doc__
    assert not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in shown.values())


def test_keywords_replace_in_an_object() -> None:
    config = SupernetConfig(epochs=7, lr=0.2)
    assert SupernetConfig.of(config, {"lr": 0.3}) == SupernetConfig(epochs=7, lr=0.3)
    assert SupernetConfig.of(None, {"lr": 0.3}) == SupernetConfig(lr=0.3)
    with pytest.raises(SettingError, match=r"did you mean supernet\.epochs"):
        SupernetConfig.of(config, {"epoch": 3})
    with pytest.raises(SettingError, match="config='RetrainConfig': expected a nas_kd.SupernetConfig"):
        SupernetConfig.of(RetrainConfig(), {})  # type: ignore[arg-type]


def test_a_setting_has_the_types_it_says() -> None:
    assert SupernetConfig(lr=1).lr == 1.0 and SupernetConfig(epochs=np.int64(3)).epochs == 3  # type: ignore[arg-type]
    for name, value in (("epochs", True), ("epochs", 2.0), ("epochs", "2"), ("lr", "0.1"), ("compile", 1)):
        with pytest.raises(SettingError, match=rf"supernet\.{name}={value!r}: expected .*; hint: leave it out for"):
            SupernetConfig(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(dataclasses.FrozenInstanceError):
        SupernetConfig().epochs = 3  # type: ignore[misc]
