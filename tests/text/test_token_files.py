"""Tokens of many texts: kept in files, made once, and never trusted where they are not whole."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_texts import reviews, tokenizer

import nas_kd
from nas_kd.data import Data, token_files
from nas_kd.data.texts import read_tokenizer
from nas_kd.errors import SettingError

pytest.importorskip("transformers")


@pytest.fixture(autouse=True)
def _always_in_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_files, "MAPPED", 0)


def load(table: Path, folder: Path, root: Path, **settings: Any) -> Data:
    given = {"rate": 0.2, "select": 0.2, "root": str(root), **settings}
    return nas_kd.load_data(str(table), tokenizer=str(folder), **given)


def folders(root: Path) -> list[Path]:
    return sorted((root / "tokens").iterdir())


def unmade(*_: Any) -> Any:
    raise AssertionError("texts were tokenised again")


def test_tokens_in_files_are_those_in_memory(
    review_table: Path, bert_folder: Path, review_data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = load(review_table, bert_folder, tmp_path)
    assert found.fingerprint == review_data.fingerprint and found.tokens == review_data.tokens
    for one, other in zip(found.splits, review_data.splits, strict=True):
        for batch, wanted in zip(one.clean(32), other.clean(32), strict=True):
            assert {*batch.x} == {*wanted.x} and all(torch.equal(batch.x[name], wanted.x[name]) for name in wanted.x)
    (folder,) = folders(tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    monkeypatch.setattr(token_files, "_chunks", unmade)
    again = load(review_table, bert_folder, tmp_path)
    assert again.fingerprint == review_data.fingerprint
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@pytest.mark.parametrize("name", ["ids.bin", "types.bin", "starts.bin", "tokens.json"])
@pytest.mark.parametrize("harm", ["cut off", "gone", "changed"])
def test_files_that_are_not_whole_are_made_again(
    name: str, harm: str, review_table: Path, bert_folder: Path, review_data: Data, tmp_path: Path
) -> None:
    load(review_table, bert_folder, tmp_path)
    (folder,) = folders(tmp_path)
    path = folder / name
    content = path.read_bytes()
    if harm == "gone":
        path.unlink()
    elif harm == "cut off":
        path.write_bytes(content[:-8])
    else:
        path.write_bytes(content[:-8] + bytes([content[-8] ^ 1]) + content[-7:])
    assert load(review_table, bert_folder, tmp_path).fingerprint == review_data.fingerprint
    assert path.read_bytes() == content and folders(tmp_path) == [folder]


def test_what_a_killed_process_left_goes_after_a_day(review_table: Path, bert_folder: Path, tmp_path: Path) -> None:
    load(review_table, bert_folder, tmp_path)
    (folder,) = folders(tmp_path)
    (folder / "ids.bin").unlink()
    old, new = (folder.with_name(f".{folder.name}.{number}.tmp") for number in (1, 2))
    for part in (old, new):
        part.mkdir()
        (part / "ids.bin").write_bytes(b"x")
    os.utime(old, (0, 0))
    load(review_table, bert_folder, tmp_path)
    assert folders(tmp_path) == [new, folder]


def test_a_broken_off_start_is_not_used(
    review_table: Path, bert_folder: Path, review_data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = token_files._chunks

    def broken(*args: Any) -> Any:
        yield next(whole(*args))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(token_files, "AT_ONCE", 50)
        patch.setattr(token_files, "_chunks", broken)
        with pytest.raises(KeyboardInterrupt):
            load(review_table, bert_folder, tmp_path)
    assert folders(tmp_path) == []
    assert load(review_table, bert_folder, tmp_path).fingerprint == review_data.fingerprint


def test_what_a_faster_process_wrote_stays(
    review_table: Path, bert_folder: Path, review_data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be reading it, and hand it to its workers."""
    whole, inodes = token_files._chunks, []

    def slower(*args: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(token_files, "_chunks", whole)
            patch.setattr(token_files, "part_of", lambda path: path.with_name(f".{path.name}.other.tmp"))
            load(review_table, bert_folder, tmp_path)
        inodes.append([path.stat().st_ino for path in folders(tmp_path) if not path.name.startswith(".")])
        yield from whole(*args)

    monkeypatch.setattr(token_files, "_chunks", slower)
    assert load(review_table, bert_folder, tmp_path).fingerprint == review_data.fingerprint
    assert inodes == [[path.stat().st_ino for path in folders(tmp_path)]]


def test_other_texts_lengths_and_tokenizers_have_files_of_their_own(
    review_table: Path, bert_folder: Path, tmp_path: Path
) -> None:
    load(review_table, bert_folder, tmp_path)
    load(review_table, bert_folder, tmp_path, length=12)
    tokenizer(tmp_path / "other", size=60)
    load(review_table, tmp_path / "other", tmp_path)
    reviews(seed=5).to_csv(tmp_path / "more.csv", index=False)
    load(tmp_path / "more.csv", bert_folder, tmp_path)
    assert len(folders(tmp_path)) == 4


def test_what_a_call_leaves_in_a_tokenizer_changes_nothing(bert_folder: Path, tmp_path: Path) -> None:
    one = read_tokenizer(str(bert_folder))
    texts = reviews()["text"].tolist()
    for _ in range(2):
        token_files.made(one, texts, None, 16, tmp_path)
    assert len(folders(tmp_path)) == 1


def test_another_process_is_handed_the_folder(review_table: Path, bert_folder: Path, tmp_path: Path) -> None:
    data = load(review_table, bert_folder, tmp_path)
    store = data.train._tokens
    sent = pickle.dumps(store)
    assert len(sent) < 1000
    again = pickle.loads(sent)
    assert again.digest() == store.digest() and again.length == store.length


def test_a_text_without_tokens_is_refused(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"[UNK]": 0, "good": 1, "bad": 2}, unk_token="[UNK]"))
    words.normalizer = normalizers.BertNormalizer()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    made = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", pad_token="[UNK]")
    made.save_pretrained(tmp_path)
    rows = "".join(f"{('good', 'bad')[at % 2]} {at},{at % 2}\n" for at in range(40))
    (tmp_path / "t.csv").write_text(f"text,label\n{rows}\u200b,1\n", encoding="utf-8")
    with pytest.raises(SettingError, match=r"data\.tokenizer.*at least a token"):
        load(tmp_path / "t.csv", tmp_path, tmp_path)


def test_a_folder_that_cannot_be_written_is_named(review_table: Path, bert_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("a file")
    with pytest.raises(SettingError, match=r"data\.root"):
        load(review_table, bert_folder, tmp_path)
