"""Code that a run folder names runs only when its user has named it: on the command line, or when the run was made."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_run import CONFIG, Said

from nas_kd.config.settings import hint_of, settings_of
from nas_kd.errors import SettingError
from nas_kd.pipeline.config import Config
from nas_kd.pipeline.export_command import read_export
from nas_kd.pipeline.named import CODE, PLACES, check_named

Main = Callable[..., Said]
VERBS = ("run", "describe", "teacher", "supernet", "blockwise", "search", "retrain", "rank")
# texts that name neither code nor what is written to: paths that are read, words, numbers, columns
HARMLESS = {
    *("run", "device", "data.train", "data.test", "data.image", "data.label", "data.group", "data.split_column"),
    *("data.train_split", "data.test_split", "data.augment", "data.background"),
    *("data.tokenizer", "data.text", "data.text_pair", "search.first"),
    *("teacher.checkpoint", "teacher.stages", "teacher.optimizer", "supernet.checkpoint", "search.engine"),
    *("search.latency_table", "search.max_macs", "search.max_params", "search.min_macs", "search.min_params"),
    *(
        "search.objectives",
        "retrain.optimizer",
        "retrain.rivals",
        "rank.archs",
        "rank.optimizer",
        "rank.bands",
    ),
}


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Make a run folder of somebody else, beside a module and a space that leave a mark when they run."""
    code = f"open({str(tmp_path / 'RAN')!r}, 'a').write('x')\n"
    (tmp_path / "evilmod.py").write_text(f"{code}def net(num_classes=10, in_chans=3):\n    open('x')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "evilmod", raising=False)

    def make(name: str = "", value: Any = None, plain: bool = False) -> Path:
        folder = tmp_path / "theirs"
        folder.mkdir(exist_ok=True)
        settings = yaml.safe_load(CONFIG)
        (folder / "evil.py").write_text(code)
        section, _, own = name.rpartition(".")
        (settings.setdefault(section, {}) if section else settings)[own] = value
        settings["data"]["download"] = name == "data.root"
        (folder / "config.yaml").write_text(yaml.safe_dump(settings))
        (folder / "env.json").write_text(json.dumps({"nas_kd": "0.2.0"}))
        return folder

    return make


def bad(folder: Path) -> dict[str, Any]:
    code = "evilmod:net"
    return {
        "space": str(folder / "theirs/evil.py"),
        "teacher.model": code,
        "teacher.others": [code],
        "retrain.method": code,
        "retrain.method_settings": {"temperature": 4.0, "view": code},
        "rank.method": code,
        "rank.scores": ["macs", code],
        "rank.primary": code,
        "rank.control": code,
        "search.storage": "postgresql://me@evil.example/db",
        "teacher.cache": str(folder / "precious"),
        "data.root": str(folder / "precious"),
    }


def test_every_setting_is_judged() -> None:
    """A new setting that takes any text has to say whether it names code."""
    assert set(bad(Path())) == {"space", *CODE, *PLACES}
    texts = {name for name, (kind, own) in settings_of(Config).items() if takes_text(hint_of(kind, own))}
    assert texts == HARMLESS | {"space", *CODE, *PLACES}


def takes_text(hint: Any) -> bool:
    """Tell whether any text is valid: that it is one of a few words is checked by the type."""
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    for value in ("evilmod:net", ["evilmod:net"], {"a": "evilmod:net"}):
        try:
            TypeAdapter(hint, config=ConfigDict(strict=True, arbitrary_types_allowed=True)).validate_python(value)
        except ValidationError:
            continue
        return True
    return False


@pytest.mark.parametrize("name", ["space", *CODE, *PLACES])
def test_a_folder_runs_nothing_by_itself(
    name: str, stranger: Callable[..., Path], nas_kd_main: Main, tmp_path: Path
) -> None:
    value = bad(tmp_path)[name]
    folder = stranger(name, value)
    before = sorted(folder.iterdir())
    text = value if isinstance(value, str) else f"'{json.dumps(value)}'"
    config = folder / "config.yaml"
    every: list[tuple[Any, ...]] = [(verb, folder) for verb in VERBS]
    every += [("search", folder, "--worker"), ("rank", folder, "--worker"), ("describe", config)]
    for given in [*every, ("run", "--config", config)] if name == "space" else every[-3:]:
        said = nas_kd_main(*given)
        assert said.code == 2 and len(said.err.splitlines()) == 1, said.err
        assert f"add to the command: --{name} {text}" in said.err and "Traceback" not in said.err
    for verb in ("status", "report"):
        nas_kd_main(verb, folder)
    assert not (tmp_path / "RAN").exists() and not (tmp_path / "precious").exists()
    assert sorted(path for path in folder.iterdir() if path.name != "report") == before


@pytest.mark.parametrize("name", ["retrain.method", "rank.primary", "teacher.model"])
def test_a_prefix_of_timms_hubs_is_code_where_no_teacher_is_named(name: str, tmp_path: Path) -> None:
    if name == "teacher.model":
        check_named({name: "hf_hub:timm/resnet18"}, tmp_path)
        return
    with pytest.raises(SettingError, match=name):
        check_named({name: "hf_hub:f"}, tmp_path)


def test_an_export_takes_no_foreign_place_from_the_run_around_a_student(tmp_path: Path) -> None:
    student = tmp_path / "retrain" / "K" / "seed_0" / "student"
    student.mkdir(parents=True)
    data = {"train": "torch/cifar10", "download": True, "root": str(tmp_path.parent / "elsewhere")}
    (tmp_path / "config.yaml").write_text(json.dumps({"data": data}))
    with pytest.raises(SettingError, match="data.root"):
        read_export([str(student), "--int8"])
    assert read_export([str(student)]).data.root != data["root"]  # images are asked for by --int8 alone
    assert read_export([str(student), "--int8", "--data.root", data["root"]]).data.root == data["root"]


@pytest.mark.parametrize("train", ["texts.csv", "TEXTS.JSONL", "hfds/imdb", None])
def test_tokens_of_texts_go_to_no_foreign_place(train: str | None, tmp_path: Path) -> None:
    """Nothing is downloaded, and yet tokens of many texts are written there; None: the command line names the table."""
    named = {"data.train": train, "data.download": False, "data.root": str(tmp_path / "elsewhere")}
    values = {name: value for name, value in named.items() if value is not None}
    run = tmp_path / "theirs"
    with pytest.raises(SettingError, match="data.root"):
        check_named(values, run)
    check_named({**values, "data.train": "torch/cifar10"}, run)  # that is only read
    check_named({**values, "data.root": str(run / "tokens")}, run)


def test_what_is_named_again_runs(stranger: Callable[..., Path], nas_kd_main: Main, tmp_path: Path) -> None:
    """Else nothing here could fail; several at once stand in one line."""
    folder = stranger("space", str(tmp_path / "theirs/evil.py"))
    config = yaml.safe_load((folder / "config.yaml").read_text()) | {"teacher": {"model": "evilmod:net"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    said = nas_kd_main("describe", folder)
    line = said.err.strip().partition("add to the command: ")[2]
    assert line == f"--space {folder / 'evil.py'} --teacher.model evilmod:net"
    said = nas_kd_main("describe", folder, "--space", folder / "evil.py")
    assert "--teacher.model evilmod:net" in said.err and "--space" not in said.err and not (tmp_path / "RAN").exists()
    said = nas_kd_main("describe", folder, *line.split())
    assert said.code == 2 and (tmp_path / "RAN").exists(), said.err  # the file has no SPACE
    (tmp_path / "RAN").unlink()
    assert "add to the command" in nas_kd_main("describe", folder).err  # once is not for ever
    assert not (tmp_path / "RAN").exists()


SPACE = "from nas_kd import load_space\nSPACE = load_space('digits')\n"


def test_a_run_of_ones_own_goes_on_by_its_folder(
    nas_kd_main: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record lies outside of the run folder: a copy of the folder elsewhere, or by another user, has none."""
    own = tmp_path / "mine"
    own.mkdir()
    (own / "space.py").write_text(f"{SPACE}open({str(tmp_path / 'RAN')!r}, 'a').write('x')\n")
    config = own / "mini.yaml"
    config.write_text(CONFIG.replace("space: digits", f"space: {own / 'space.py'}"))
    state = tmp_path / "state"
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    run = tmp_path / "run"
    assert nas_kd_main("supernet", config, "--run", run, "--max_hours", "1e-9").code == 124  # out of time
    (record,) = state.rglob("*.json")
    assert not record.is_relative_to(run) and record.parent.stat().st_mode & 0o077 == 0

    def refused(folder: Path) -> bool:
        (tmp_path / "RAN").unlink(missing_ok=True)
        said = nas_kd_main("describe", folder)
        assert (said.code == 0) is (tmp_path / "RAN").exists(), said.err
        return f"add to the command: --space {own / 'space.py'}" in said.err

    run.mkdir(exist_ok=True)  # the time may have been over before the folder was made
    (run / "config.yaml").write_text(config.read_text())
    assert not refused(run)
    (tmp_path / "link").symlink_to(run)
    assert not refused(tmp_path / "link")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another"))
    assert refused(run)
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    assert refused(Path(run.rename(tmp_path / "moved")))
    (tmp_path / "moved").rename(run)
    assert not refused(run)
    for spoilt in ("", "[]", "{}", '{"named": 3}', json.dumps({"run": str(tmp_path), "named": []})):
        record.write_text(spoilt)
        assert refused(run)


def test_code_in_the_folder_itself_is_named_each_time(
    nas_kd_main: Main, tmp_path: Path, stranger: Callable[..., Path]
) -> None:
    """Whoever replaces the folder replaces the code too."""
    inside = tmp_path / "theirs/evil.py"
    folder = stranger("space", str(inside))
    inside.write_text(f"{inside.read_text()}{SPACE}")
    assert nas_kd_main("supernet", folder, "--space", inside, "--max_hours", "1e-9").code == 124
    assert f"add to the command: --space {inside}" in nas_kd_main("describe", folder).err
