"""Names on the hub: from its cache without a network, never code, never weights that are no safetensors."""

from __future__ import annotations

import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_texts import bert

import nas_kd
from nas_kd.cli import main
from nas_kd.config import hub
from nas_kd.data import Data
from nas_kd.errors import SettingError
from nas_kd.teacher import Teacher

pytest.importorskip("transformers")
huggingface_hub = pytest.importorskip("huggingface_hub")

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    hub._snapshot.cache_clear()
    return tmp_path / "hub"


def stored(cache: Path, folder: Path, name: str = "someone/tiny-bert") -> Path:
    """Put a folder into the cache, as if it had been downloaded."""
    home = cache / f"models--{name.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(COMMIT)
    return Path(shutil.copytree(folder, home / "snapshots" / COMMIT))


def test_a_name_in_the_cache_is_a_teacher(
    cache: Path, bert_folder: Path, text_teacher: Teacher, review_data: Data, review_table: Path
) -> None:
    place = stored(cache, bert_folder)
    teacher = nas_kd.load_teacher("someone/tiny-bert")
    assert teacher.name == "someone/tiny-bert" and teacher.fingerprint == text_teacher.fingerprint
    data = nas_kd.load_data(str(review_table), tokenizer="someone/tiny-bert", rate=0.2, select=0.2)
    assert data.fingerprint == review_data.fingerprint
    x = next(iter(data.test.clean(8))).x
    assert torch.equal(teacher.bind(data)(x), text_teacher(x))
    assert hub.at_home("teacher.model", "someone/tiny-bert") == place


def test_the_command_line_takes_names(
    cache: Path, bert_folder: Path, review_table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored(cache, bert_folder)
    options = ["--data.train", str(review_table), "--data.rate", "0.2", "--data.select", "0.2"]
    given = ["describe", "--teacher.model", "someone/tiny-bert", *options, "--search.max_macs", "50%"]
    assert main([*given, "--run", str(tmp_path / "run")]) == 0
    assert "texts of" in capsys.readouterr().out


def test_what_is_not_there_is_told(cache: Path) -> None:
    with pytest.raises(SettingError, match=r"teacher\.model='someone/nothing'.*hub.*without a network"):
        nas_kd.load_teacher("someone/nothing")
    with pytest.raises(SettingError, match=r"data\.tokenizer='someone/nothing'.*hub"):
        nas_kd.load_data("texts.csv", tokenizer="someone/nothing")


def test_pickles_and_parts_are_not_opened(cache: Path, tmp_path: Path) -> None:
    bert(tmp_path / "one")
    (tmp_path / "one" / "model.safetensors").unlink()
    torch.save({}, tmp_path / "one" / "pytorch_model.bin")
    stored(cache, tmp_path / "one")
    with pytest.raises(SettingError, match=r"teacher\.model='someone/tiny-bert'"):
        nas_kd.load_teacher("someone/tiny-bert")


@pytest.mark.parametrize("reached", [True, False])
def test_a_cache_without_a_tokenizer_is_completed(
    reached: bool, cache: Path, bert_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a library leaves it that has opened the model alone."""
    model = tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(bert_folder / name, model / name)

    def given(name: str, local_files_only: bool = False, **_: Any) -> str:
        if not local_files_only and not reached:
            raise ConnectionError(name)
        return str(model if local_files_only else bert_folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", given)
    assert hub.at_home("teacher.model", "someone/model") == (bert_folder if reached else model)


def test_only_weights_and_tokens_are_asked_for(cache: Path, bert_folder: Path, monkeypatch: Any) -> None:
    asked: list[dict[str, Any]] = []

    def given(name: str, **how: Any) -> str:
        asked.append({"name": name, **how})
        if how.get("local_files_only"):
            raise FileNotFoundError(name)
        return str(bert_folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", given)
    assert hub.at_home("teacher.model", "someone/new") == bert_folder
    assert [each.get("local_files_only", False) for each in asked] == [True, False]
    for each in asked:
        taken = [name for name in (*TAKEN, *LEFT) if any(fnmatch(name, some) for some in each["allow_patterns"])]
        assert taken == [*TAKEN]


TAKEN = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
LEFT = ("pytorch_model.bin", "tf_model.h5", "modeling_own.py", "tokenizer.py", "tokenization_own.py", "run.sh")


def test_folders_are_no_names(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    for name in ("runs/typo", "./a/b", "resnet18", "package.module:factory", "hf-hub:someone/x", "a/b/c", "/a/b"):
        assert not hub.is_hub_name(name), name
    assert not hub.is_hub_name(Path("someone/tiny-bert"))
    assert hub.is_hub_name("someone/tiny-bert")
