"""nas-kd init: the config it writes is accepted as it is, keeps what was given, and fits the time by the plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nas_kd.cli import main
from nas_kd.config.settings import build
from nas_kd.errors import SettingError
from nas_kd.pipeline import fit_time
from nas_kd.pipeline.config import Config
from nas_kd.pipeline.fit_time import FILL, PlacedGiven, fit, read_time
from nas_kd.pipeline.init_command import commented
from nas_kd.pipeline.pace import Pace
from nas_kd.pipeline.plan import planned
from nas_kd.pipeline.read_config import read_config

PACE = Pace(1e-4, 4e-4, 1e-4, 3e-4, 1e-3, 10_000, 1e-3)  # seconds an image, of no machine
GIVEN = {"data.train": "digits", "data.subset": 400, "teacher.model": "cifar_resnet8"}


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_time, "pace", lambda given: PACE)


@pytest.mark.parametrize(
    ("text", "seconds"), [("45s", 45), ("90 min", 5400), ("2h", 7200), ("1.5h", 5400), ("1d", 86400), ("10m", 600)]
)
def test_times_are_read(text: str, seconds: float) -> None:
    assert read_time(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "-1h", "0h", "soon", "1e3h"])
def test_no_times_are_refused(text: str) -> None:
    with pytest.raises(SettingError, match="time="):
        read_time(text)


def total(values: dict[str, Any]) -> float:
    return sum(work.seconds for work in planned(PlacedGiven(build(Config, values)), PACE))


@pytest.mark.usefixtures("timed")
def test_more_time_is_more_training_within_the_time() -> None:
    lengths = []
    for seconds in (60.0, 200.0, 2000.0):
        chosen, works = fit(GIVEN, seconds)
        planned_seconds = sum(work.seconds for work in works)
        assert planned_seconds <= FILL * seconds
        assert planned_seconds == pytest.approx(total(GIVEN | chosen))
        lengths.append(chosen["retrain.epochs"] * chosen["retrain.seeds"])
        assert chosen["teacher.epochs"] == 2 * chosen["retrain.epochs"]  # it has no weights
    assert lengths == sorted(set(lengths)) and lengths[-1] == 300
    with pytest.raises(SettingError, match="time=.* or more for these images"):
        fit(GIVEN, 1.0)


@pytest.mark.usefixtures("timed")
def test_what_is_given_stays(tmp_path: Path) -> None:
    chosen, _ = fit(GIVEN | {"retrain.epochs": 3, "search.trials": 7, "space": "digits"}, 600.0)
    assert not chosen.keys() & {"retrain.epochs", "search.trials"}
    assert chosen["supernet.epochs"] >= 2 and "repair.epochs" not in chosen


@pytest.mark.usefixtures("timed")
def test_the_config_is_accepted_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = [part for name, value in GIVEN.items() for part in (f"--{name}", str(value))]
    assert main(["init", "mine.yaml", *options, "--time", "5min"]) == 0
    assert "written: mine.yaml" in capsys.readouterr().out
    text = Path("mine.yaml").read_text()
    assert text.count("# ") > 10 and max(map(len, text.splitlines())) <= 120
    config = read_config(["mine.yaml"])
    assert config is not None and config.run == "runs/mine"
    assert (config.data.subset, config.teacher.model, config.search.max_macs) == (400, "cifar_resnet8", "30%")
    chosen, _ = fit(GIVEN | {"search.max_macs": "30%"}, 300.0)
    assert {name: getattr(getattr(config, name.split(".")[0]), name.split(".")[1]) for name in chosen} == chosen
    assert main(["describe", "mine.yaml"]) == 0 and "budget: at most" in capsys.readouterr().out
    assert main(["init", "mine.yaml", *options]) == 2
    assert "a file that does not exist yet" in capsys.readouterr().err and Path("mine.yaml").read_text() == text


def test_every_setting_comes_back_from_its_comment(tmp_path: Path) -> None:
    values = {
        "space": "digits",
        "seed": 3,
        "retrain.rivals": ["even_both"],
        "search.max_macs": "8%",
        "retrain.lr": 1e-05,
    }
    (tmp_path / "c.yaml").write_text(commented(["one", "two"], values))
    found = read_config([str(tmp_path / "c.yaml"), "--run", "r"])
    assert found == build(Config, values | {"run": "r"})
