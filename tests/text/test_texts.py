"""Texts as data: columns, tokens, splits by a hash of the text, batches of like length."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_texts import reviews

import nas_kd
from nas_kd.data import Data
from nas_kd.data.summary import summary
from nas_kd.errors import SettingError
from nas_kd.nn import inputs

pytest.importorskip("transformers")


def load(path: Path, folder: Path, **settings: Any) -> Data:
    return nas_kd.load_data(str(path), tokenizer=str(folder), **{"rate": 0.2, "select": 0.2, **settings})


def written(frame: pd.DataFrame, path: Path) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in frame.to_dict("records")), encoding="utf-8")
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


def test_tokens_are_those_of_the_tokenizer(review_data: Data, bert_folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(bert_folder)
    frame = reviews()
    by_name = {}
    for text in frame["text"]:
        by_name[hashlib.sha256(text.encode()).hexdigest()[:16]] = text
    batch = next(iter(review_data.test.clean(16)))
    for row, number in enumerate(batch.index.tolist()):
        want = tokenizer(by_name[review_data.test.names[number]])["input_ids"]
        mask = batch.x["attention_mask"][row].bool()
        assert batch.x["input_ids"][row][mask].tolist() == want
        assert mask.sum() == len(want)
        assert (batch.x["input_ids"][row][~mask] == tokenizer.pad_token_id).all()
    assert set(batch.x) == {"input_ids", "attention_mask", "token_type_ids"}


def test_labels_go_with_their_texts(review_data: Data) -> None:
    frame = reviews()
    label = {hashlib.sha256(t.encode()).hexdigest()[:16]: name for t, name in zip(frame.text, frame.label, strict=True)}
    for split in review_data.splits:
        assert [review_data.classes[y] for y in split.labels.tolist()] == [label[name] for name in split.names]
    assert review_data.classes == ("neg", "pos")


@pytest.mark.parametrize("suffix", [".tsv", ".jsonl", ".parquet"])
def test_every_file_gives_the_same_data(suffix: str, tmp_path: Path, bert_folder: Path, review_data: Data) -> None:
    found = load(written(reviews(), tmp_path / f"reviews{suffix}"), bert_folder)
    assert found.fingerprint == review_data.fingerprint


def test_a_text_stays_in_its_split_wherever_it_stands(tmp_path: Path, bert_folder: Path, review_data: Data) -> None:
    mixed = reviews().sample(frac=1, random_state=3)
    found = load(written(mixed, tmp_path / "mixed.csv"), bert_folder)
    for one, other in zip(found.splits, review_data.splits, strict=True):
        assert set(one.names) == set(other.names)


def test_equal_texts_are_in_one_split(tmp_path: Path, bert_folder: Path) -> None:
    frame = reviews()
    twice = pd.concat([frame, frame[:60]], ignore_index=True)
    found = load(written(twice, tmp_path / "twice.csv"), bert_folder)
    homes: dict[str, set[str]] = {}
    for split in found.splits:
        for name in split.names:
            homes.setdefault(name, set()).add(split.name)
    assert all(len(home) == 1 for home in homes.values())
    assert any("are equal to another" in line for line in summary(found, "twice.csv"))


def test_test_texts_among_the_training_texts_are_refused(tmp_path: Path, bert_folder: Path) -> None:
    train = written(reviews(), tmp_path / "train.csv")
    test = written(pd.concat([reviews(40, seed=9), reviews()[:2]]), tmp_path / "test.csv")
    with pytest.raises(SettingError, match="2 of 42 test texts are training texts"):
        load(train, bert_folder, test=str(test))
    kept = load(train, bert_folder, test=str(test), duplicates="keep")
    assert len(kept.test) == 42


def test_long_texts_are_cut_and_told(tmp_path: Path, bert_folder: Path) -> None:
    path = written(reviews(), tmp_path / "reviews.csv")
    whole = load(path, bert_folder)
    lengths = np.concatenate([b.x["attention_mask"].sum(1).numpy() for s in whole.splits for b in s.clean(64)])
    short = load(path, bert_folder, length=12)
    assert short.tokens is not None and short.resolution == 12
    assert short.tokens.cut == pytest.approx(float((lengths > 12).mean()))
    batch = next(iter(short.test.clean(64)))
    assert batch.x["input_ids"].shape[1] <= 12
    said = next(summary(short, "reviews.csv"))
    assert "texts of 12 tokens" in said and f"{100 * short.tokens.cut:.1f} % are longer" in said


def test_batches_hold_texts_of_like_length_and_every_text_once(review_data: Data) -> None:
    split = review_data.train
    whole = list(split.batches(16, epoch=0, seed=1))
    index = torch.cat([batch.index for batch in whole])
    assert len(index) == len(index.unique()) == len(split) // 16 * 16
    widths = [batch.x["attention_mask"].sum(1) for batch in whole]
    spread = torch.stack([(width.max() - width.min()).float() for width in widths]).mean()
    lengths = torch.cat(widths)
    shuffled = lengths[torch.randperm(len(lengths), generator=torch.Generator().manual_seed(0))].split(16)
    at_random = torch.stack([(width.max() - width.min()).float() for width in shuffled]).mean()
    assert spread < at_random / 2
    assert not torch.equal(index, torch.cat([b.index for b in split.batches(16, epoch=1, seed=1)]))
    assert torch.equal(index, torch.cat([b.index for b in split.batches(16, epoch=0, seed=1)]))


def test_a_resumed_epoch_has_the_same_batches(review_data: Data) -> None:
    whole = list(review_data.train.batches(16, epoch=2, seed=5))
    later = list(review_data.train.batches(16, epoch=2, seed=5, first=3))
    assert [b.index.tolist() for b in later] == [b.index.tolist() for b in whole[3:]]


def test_processes_share_a_batch(review_data: Data) -> None:
    whole = next(iter(review_data.train.batches(16, epoch=0, seed=0)))
    parts = [next(iter(review_data.train.batches(16, epoch=0, seed=0, rank=rank, world=2))) for rank in (0, 1)]
    assert sorted(whole.index.tolist()) == sorted([*parts[0].index.tolist(), *parts[1].index.tolist()])


def test_a_batch_can_be_divided_and_joined(review_data: Data) -> None:
    batch = next(iter(review_data.train.batches(16, epoch=0, seed=0)))
    halves = batch.parts(2)
    for name, whole in batch.x.items():
        assert torch.equal(torch.cat([half.x[name] for half in halves]), whole)
    short = {name: part[:, :3] for name, part in halves[0].x.items()}
    joined = inputs.joined([short, halves[1].x])
    assert joined["attention_mask"][:8, 3:].sum() == 0
    assert torch.equal(joined["input_ids"][8:], halves[1].x["input_ids"])
    assert inputs.count(joined) == 16


def test_pairs_of_texts_tell_their_parts(tmp_path: Path, bert_folder: Path) -> None:
    frame = reviews()
    frame = pd.DataFrame({"sentence1": frame.text, "sentence2": frame.text[::-1].tolist(), "label": frame.label})
    found = load(written(frame, tmp_path / "pairs.csv"), bert_folder)
    assert found.tokens is not None and found.tokens.pairs
    batch = next(iter(found.test.clean(8)))
    kinds, mask = batch.x["token_type_ids"], batch.x["attention_mask"]
    assert ((kinds == 1).sum(1) > 0).all() and (kinds[mask == 0] == 0).all()


def test_numbers_are_regression(tmp_path: Path, bert_folder: Path) -> None:
    frame = reviews().assign(label=np.linspace(-1.5, 1.5, 240))
    found = load(written(frame, tmp_path / "rated.csv"), bert_folder)
    assert found.kind == "regression" and found.train.labels.shape == (len(found.train), 1)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_named_labels_are_no_texts(suffix: str, tmp_path: Path, bert_folder: Path) -> None:
    frame = reviews().rename(columns={"text": "question", "label": "answer"})
    words = load(written(frame, tmp_path / f"words{suffix}"), bert_folder, label="answer")
    assert words.tokens is not None and not words.tokens.pairs
    assert words.classes == ("neg", "pos")
    rated = load(
        written(frame.assign(answer=np.linspace(-1, 1, 240)), tmp_path / f"r{suffix}"), bert_folder, label="answer"
    )
    assert rated.kind == "regression"
    numbers = frame.assign(answer=np.arange(240) % 12)
    assert load(written(numbers, tmp_path / f"n{suffix}"), bert_folder, label="answer").classes == (
        *map(str, range(12)),
    )
    with pytest.raises(SettingError, match=r"data\.label='answer'"):
        load(tmp_path / f"words{suffix}", bert_folder, label="answer", text_pair="answer")


def test_words_that_pandas_takes_for_nothing_are_texts(tmp_path: Path, bert_folder: Path) -> None:
    words = ["None", "NA", "null", "nan", "N/A"]
    frame = reviews()
    mixed = frame.assign(text=[*words, *frame.text[5:]])
    found = load(written(mixed, tmp_path / "words.csv"), bert_folder)
    names = {name for split in found.splits for name in split.names}
    assert {hashlib.sha256(word.encode()).hexdigest()[:16] for word in words} <= names
    pairs = mixed.assign(text_pair=frame.text[::-1].tolist()).assign(label=frame.label)
    pairs.loc[7, "text_pair"] = ""
    with pytest.raises(SettingError, match=r"no text in 1 rows of column 'text_pair', the first 7.*data\.text_pair"):
        load(written(pairs, tmp_path / "pairs.csv"), bert_folder)


@pytest.mark.parametrize(("name", "value"), [("text", "a"), ("text_pair", "a"), ("length", 16)])
def test_settings_of_texts_are_refused_for_images(name: str, value: Any) -> None:
    with pytest.raises(SettingError, match=rf"data\.{name}.*null for images.*data\.tokenizer"):
        nas_kd.load_data("digits", **{name: value})


BAD: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no column of texts": (lambda f: f.rename(columns={"text": "words"}), {}, "words, label"),
    "an unknown column": (lambda f: f, {"text": "review"}, "text, label"),
    "empty texts": (lambda f: f.assign(text=f.text.where(f.index != 4, " ")), {}, "no text in 1 rows"),
    "one class": (lambda f: f.assign(label="pos"), {}, "at least two classes"),
    "no label": (lambda f: f.drop(columns="label"), {}, "a column of labels"),
    "images' settings": (lambda f: f, {"resolution": 32}, "data.resolution"),
    "augmentation": (lambda f: f, {"augment": "rand-m9"}, "data.augment"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_tables_are_refused(name: str, tmp_path: Path, bert_folder: Path) -> None:
    change, settings, said = BAD[name]
    with pytest.raises(SettingError, match=said):
        load(written(change(reviews()), tmp_path / "bad.csv"), bert_folder, **settings)


def test_bad_files_are_refused(tmp_path: Path, bert_folder: Path) -> None:
    (tmp_path / "list.jsonl").write_text("[1, 2]\n", encoding="utf-8")
    (tmp_path / "broken.jsonl").write_text('{"text": "a"\n', encoding="utf-8")
    (tmp_path / "texts.txt").write_text("a text\n", encoding="utf-8")
    for name in ("list.jsonl", "broken.jsonl", "texts.txt", "nothing.csv"):
        with pytest.raises(SettingError, match=r"data\.train"):
            load(tmp_path / name, bert_folder)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path, review_table: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    with pytest.raises(SettingError, match=r"data\.tokenizer"):
        load(review_table, tmp_path)
