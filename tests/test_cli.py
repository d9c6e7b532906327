"""The command line: options win over the file, mistakes end with 2 and one line, help needs no torch."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nas_kd
from nas_kd.cli import main
from nas_kd.config.settings import settings_of
from nas_kd.errors import SettingError
from nas_kd.export.config import ExportConfig
from nas_kd.pipeline.command_table import COMMANDS
from nas_kd.pipeline.config import Config
from nas_kd.pipeline.read_config import read_config
from nas_kd.runs.run import Run
from nas_kd.runtime.device import Runtime

ROOT = Path(nas_kd.__file__).parents[1]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text("space: resnet_cifar\nsearch:\n  trials: 7\n  max_macs: 50%\nteacher: {epochs: 2, lr: 1e-2}\n")
    return path


@pytest.mark.parametrize("place", ["first", "last", "option", "equals"])
def test_options_win_wherever_the_file_stands(config: Path, place: str) -> None:
    options = ["--search.trials", "9", "--data.flip=false", "--search.max_params", "null"]
    file = {"first": [str(config)], "last": [str(config)], "option": ["--config", str(config)]}
    own = file.get(place, [f"--config={config}"])
    found = read_config(own + options if place == "first" else options + own)
    assert found is not None
    assert (found.space, found.search.trials, found.search.max_macs) == ("resnet_cifar", 9, "50%")
    assert (found.data.flip, found.search.max_params) == (False, None)
    assert (found.teacher.epochs, found.teacher.lr) == (2, 0.01)
    assert found.supernet == Config().supernet


def test_settings_of_a_method_by_their_short_and_long_names(config: Path) -> None:
    short = ["--method", "dkd", "--method.temperature", "4", "--method.standardise=true"]
    names = ["--retrain.method", "dkd", "--retrain.method_settings.temperature", "4"]
    for arguments in ([str(config), *short], [*names, "--retrain.method_settings.standardise=true", str(config)]):
        found = read_config(arguments, command="retrain")
        assert found is not None and found.retrain.method == "dkd" and found.search.trials == 7
        assert found.retrain.method_settings == {"temperature": 4, "standardise": True}
    with pytest.raises(SettingError, match=r"rank\.method"):  # there the short name would hide which is meant
        read_config(["--method", "dkd"], command="rank")


def test_losses_and_settings_in_a_file_come_back_from_the_run_folder(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    for text, method, settings in (
        ("{method: [[ce, 0.1], [kd, 1]]}", [("ce", 0.1), ("kd", 1.0)], {}),
        ("{method: dkd, method_settings: {beta: 8, temperature: 2.5}}", "dkd", {"beta": 8, "temperature": 2.5}),
    ):
        path.write_text(f"retrain: {text}\n")
        found = read_config([str(path)])
        assert found is not None and (found.retrain.method, found.retrain.method_settings) == (method, settings)
        path.write_text(found.to_yaml())
        assert read_config([str(path)]) == found
    winner = read_config([str(path), "--method.beta", "4"], command="retrain")
    assert winner is not None and winner.retrain.method_settings == {"beta": 4, "temperature": 2.5}


def test_run_folder_is_named_after_the_config(config: Path) -> None:
    for arguments, run in (
        ([str(config)], "runs/mine"),
        ([str(config), "--run", "elsewhere"], "elsewhere"),
        (["--space", "search_spaces/my_space.py"], "runs/my_space"),
    ):
        found = read_config(arguments)
        assert found is not None and found.run == run


def test_a_run_folder_stands_for_its_own_config(tmp_path: Path) -> None:
    run = Run(tmp_path / "a")
    run.record_config(Config(run="runs/a", seed=5).to_yaml())
    found = read_config([str(run.path)])
    assert found is not None and (found.seed, found.run) == (5, str(run.path))


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["rum"], ["command='rum'", "run"]),
        (["run", "--search.trails", "3"], ["search.trails", "search.trials"]),
        (["run", "--trials", "3"], ["trials", "search.trials"]),
        (["run", "--epochs", "3"], ["supernet.epochs", "retrain.epochs"]),
        (["run", "--search.trials", "x"], ["search.trials='x'", "an integer"]),
        (["run", "--search.trials", "1.5"], ["search.trials", "an integer"]),
        (["run", "--search.trials", "-1"], ["search.trials=-1", "at least 1"]),
        (["run", "--supernet.epochs", "0"], ["supernet.epochs=0"]),
        (["run", "--search.max_macs", "much"], ["search.max_macs='much'", "60%"]),
        (["run", "--search.trials"], ["search.trials"]),
        (["run", "nowhere.yaml"], ["config='nowhere.yaml'"]),
        (["retrain", "--method.temperature"], ["retrain.method_settings.temperature"]),
        (["retrain", "--method.temperature", "[1]"], ["retrain.method_settings"]),
        (["run", "a.yaml", "b.yaml"], ["one config file"]),
        (["run", "--device", "gpu"], ["device='gpu'", "cuda"]),
        (["run", "--teacher.model", "resnet18"], ["teacher.checkpoint", "resnet18", "teacher.epochs"]),
        (["status", "--run", "nowhere"], ["run='nowhere'"]),
        (["status", "nowhere"], ["run='nowhere'", "an existing run folder"]),
        (["report", "nowhere"], ["run='nowhere'", "an existing run folder"]),
    ],
)
def test_mistakes_end_with_2_and_one_line(
    arguments: list[str],
    parts: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and error.startswith("nas-kd: ")
    for part in parts:
        assert part in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("search: {trails: 3}", "search.trials"),
        ("serch: {trials: 3}", "serch"),
        ("search: 3", "a mapping of settings"),
        ("- a", "a YAML mapping"),
        ("a: [", "a YAML file"),
        ("search: {trials: many}", "search.trials='many'"),
        ("search: {max_macs: [1]}", "search.max_macs"),
        ("retrain: {epochs: -1}", "retrain.epochs=-1"),
    ],
)
def test_mistakes_in_the_file(text: str, part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    assert main(["run", str(path)]) == 2
    error = capsys.readouterr().err
    assert part in error and "Traceback" not in error and len(error.splitlines()) == 1


def test_print_config_gives_a_config(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(config), "--seed", "4", "--print_config"]) == 0
    printed = config.with_name("printed.yaml")
    printed.write_text(capsys.readouterr().out)
    again = read_config([str(printed), "--run", "r"])
    assert again is not None and again == read_config([str(config), "--seed", "4", "--run", "r"])


def test_help_of_a_command_lists_and_explains_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--search.max_macs" in text and "maximum multiply-adds" in text and "(60%)" in text


def test_status_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path / "a")
    run.stage("teacher", {}).finish({})
    for arguments in (["status", "--run", str(run.path)], ["status", str(run.path)]):
        assert main(arguments) == 0
        assert capsys.readouterr().out.splitlines() == ["finished", "teacher  done"]


def test_a_folder_that_is_no_run_is_told_by_what_it_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").touch()
    assert main(["report", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "with env.json and config.yaml (this one holds thesis.tex)" in error


def test_version_says_torch_and_the_device(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    assert main(["--version"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"nas-kd {nas_kd.__version__}, torch {torch.__version__}, device ")
    kind = said.partition(" device ")[2].split()[0]
    assert kind == Runtime("auto").device.type


def _python(code: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=120)


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["run", "--print_config"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    found = _python(
        "import sys\n"
        "from nas_kd.cli import main\n"
        f"code = main({arguments!r})\n"
        "heavy = {'torch', 'timm', 'optuna', 'scipy', 'pandas', 'nni', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "sys.exit(code)"
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout


def test_every_command_is_in_the_help_and_has_its_function(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    text = capsys.readouterr().out
    from nas_kd.pipeline import commands

    for name, command in COMMANDS.items():
        assert f"  {name} " in text
        assert not command.function or callable(getattr(commands, command.function))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_a_page_of_the_commands_own_settings(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")  # as on a terminal; elsewhere lines may be longer, and fewer
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= (10 if name in ("status", "report", "compare", "methods") else 80)
    listed = re.findall(r"^  --([\w.]+)", text, re.MULTILINE)
    kind = ExportConfig if name == "export" else Config
    assert set(listed) <= set(settings_of(kind)) and len(listed) == len(set(listed))
    section = [full for full in settings_of(Config) if full.startswith(f"{name}.")]
    assert set(section) <= set(listed)
    for shown in COMMANDS[name].shown:
        assert any(full == shown or full.startswith(f"{shown}.") for full in listed), shown


def test_help_all_has_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["supernet", "--help_all"]) == 0
    text = capsys.readouterr().out
    assert re.findall(r"^  --([\w.]+)", text, re.MULTILINE) == list(settings_of(Config))


def test_texts_of_options_are_read_by_the_types_of_settings() -> None:
    found = read_config(
        ["--run", "5", "--data.train", "no", "--retrain.lr", "1e-3", "--search.max_macs", "6.5e6", "--seed", "3"]
    )
    assert found is not None
    assert (found.run, found.data.train, found.seed) == ("5", "no", 3)
    assert read_config(["--run", "5", "--space", "null"]).space is None  # type: ignore[union-attr]
    assert (found.retrain.lr, found.search.max_macs) == (1e-3, 6.5e6)


def test_threads_are_calmed_before_torch_loads() -> None:
    found = _python(
        "import os\n"
        "from nas_kd.cli import main\n"
        "main(['--help'])\n"
        "assert os.environ['OMP_WAIT_POLICY'] == 'PASSIVE' and os.environ['GOMP_SPINCOUNT'] == '0'"
    )
    assert found.returncode == 0, found.stderr
