"""Settings: defaults are legal, what is not legal is named, budgets are exact."""

from __future__ import annotations

import dataclasses
import inspect
import math
from pathlib import Path

import pytest
import yaml

from nas_kd import config as module
from nas_kd.cli import read_config
from nas_kd.config import (
    BlockwiseConfig,
    Config,
    DataConfig,
    RetrainConfig,
    SearchConfig,
    SupernetConfig,
    TeacherConfig,
    parse_budget,
)
from nas_kd.errors import SettingError
from nas_kd.rate.errors import ERRORS

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
    with pytest.raises(SettingError, match="write search.max_params=60%"):
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
        (SearchConfig, "trials", 0),
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
    for rule in ("sandwich", "bestup", "worstup", "shrinking", "uniform", "fair"):
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
    import ast

    files = sorted(Path(str(module.__file__)).parent.glob("*.py"))
    nodes = [node for file in files for node in ast.parse(file.read_text()).body]
    named = {node.name for node in nodes if isinstance(node, ast.ClassDef)}
    assert named >= {"Config", *(entry.type for entry in dataclasses.fields(Config) if "Config" in entry.type)}
    for node in nodes:
        if not isinstance(node, ast.ClassDef):
            continue
        for entry, after in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(entry, ast.AnnAssign):
                explained = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                assert explained, f"{node.name}.{ast.unparse(entry.target)}"


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
    assert yaml.safe_load(path.read_text()) == dataclasses.asdict(config)
    assert read_config([str(path)]) == config


def test_names_that_are_checked_without_torch_are_those_there_are() -> None:
    from nas_kd.config import names
    from nas_kd.distill import METHODS, TERMS
    from nas_kd.rate.scores import SCORES

    assert set(names.METHODS) == set(METHODS), "nas_kd/config/names.py"
    assert set(names.LOSSES) == {"ce", *TERMS}, "nas_kd/config/names.py"
    assert set(names.SCORES) == set(SCORES), "nas_kd/config/names.py"
    assert set(names.SIZES) <= set(SCORES) and names.ERRORS == tuple(ERRORS)


def test_python_and_settings_have_the_same_defaults() -> None:
    """But for names that a function makes of None."""
    from nas_kd import config, rate_blockwise, retrain, search, train_supernet
    from nas_kd.ranking.ground_truth import Alone
    from nas_kd.ranking.rank import rank
    from nas_kd.ranking.sample import Sample
    from nas_kd.rate.scores import SCORES

    of = {
        config.BlockwiseConfig: [rate_blockwise],
        config.SearchConfig: [search],
        config.RetrainConfig: [retrain],
        config.SupernetConfig: [train_supernet],
        config.RankConfig: [rank, Sample, Alone],
    }
    meant = {("scores", None): tuple(SCORES), ("method", None): "kd_ls", ("method_settings", ()): None}
    compared = 0
    for settings, functions in of.items():
        for field in dataclasses.fields(settings):
            own = field.default if field.default is not dataclasses.MISSING else field.default_factory()
            own = tuple(own) if isinstance(own, list | dict) else own
            for function in functions:
                other = inspect.signature(function).parameters.get(field.name)
                if other is not None:
                    wanted = meant.get((field.name, own), own)
                    assert other.default == wanted, f"{settings.__name__}.{field.name}"
                    compared += 1
    assert compared > 60
