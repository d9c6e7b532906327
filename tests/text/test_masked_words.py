"""DistilBERT's masked language model: which tokens are hidden, the library's loss as truth, and that it is learnt."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from tiny_texts import reviews
from torch import nn

import nas_kd
from nas_kd.data import Data
from nas_kd.data.tokenised import Tokenised
from nas_kd.distill import Distiller
from nas_kd.distill.masked_words import hide
from nas_kd.distill.pairing import pair_of
from nas_kd.errors import SettingError
from nas_kd.nn.text import TextNet
from nas_kd.teacher import Teacher

pytest.importorskip("transformers")


def bound(student: nn.Module, teacher: Teacher, data: Data, tokens: Tokenised | None) -> Distiller:
    distiller = Distiller("distilbert", mlm=1.0)
    image = (data.in_chans, data.resolution, data.resolution)
    return distiller.bind(pair_of(student, distiller.recipe, teacher, image, 2, len(data.train), tokens=tokens))


def test_tokens_are_hidden_as_drawn() -> None:
    tokens = Tokenised("", 50, 6, 0.0, False, 0, mask=4, special=(0, 1, 2, 3, 4))
    ids = torch.tensor([[2, 11, 12, 13, 14, 3], [2, 15, 3, 0, 0, 0]])
    real = ids != 0
    low, high = 0.1, 0.2  # guessed or not
    first = torch.tensor([[low, low, high, low, low, low], [low, low, low, low, low, low]])
    then = torch.tensor([[0.1, 0.79, 0.1, 0.85, 0.95, 0.1], [0.1, 0.3, 0.3, 0.3, 0.3, 0.3]])
    others = torch.full((2, 6), 40)
    seen, guessed = hide(ids, real, tokens, torch.stack([first, then]), others)
    assert guessed.tolist() == [[False, True, False, True, True, False], [False, True, False, False, False, False]]
    assert seen.tolist() == [[2, 4, 12, 40, 14, 3], [2, 4, 3, 0, 0, 0]]


def test_the_loss_is_that_of_the_library(text_teacher: Any, review_data: Data) -> None:
    from transformers import BertForMaskedLM

    student = deepcopy(text_teacher.network).eval()
    distiller = bound(student, text_teacher, review_data, review_data.tokens)
    module: Any = distiller.trained["mlm"]
    nn.init.normal_(module.bias)
    whole = BertForMaskedLM(student.body.config).eval()
    whole.bert.load_state_dict(student.body.bert.state_dict(), strict=False)
    head = whole.cls.predictions
    head.transform.dense.load_state_dict(module.transform.state_dict())
    head.transform.LayerNorm.load_state_dict(module.norm.state_dict())
    head.bias.data.copy_(module.bias.data)
    head.decoder.bias.data.copy_(module.bias.data)
    batch = next(iter(review_data.train.batches(16, epoch=0, seed=0)))
    ids, real = batch.x["input_ids"], batch.x["attention_mask"].bool()
    torch.manual_seed(3)
    found = module(None, batch)
    torch.manual_seed(3)
    draws = torch.rand(2, *ids.shape)
    others = torch.randint(module.tokens.vocabulary, ids.shape)
    seen, guessed = hide(ids, real, module.tokens, draws, others)
    assert 5 < int(guessed.sum()) < 0.3 * int(real.sum())
    with torch.no_grad():
        want = whole(**{**batch.x, "input_ids": seen}, labels=ids.masked_fill(~guessed, -100)).loss
    torch.testing.assert_close(found.detach(), want, atol=1e-5, rtol=1e-5)


def test_it_is_learnt_and_no_part_of_the_student(text_teacher: Any, review_data: Data) -> None:
    student: TextNet = deepcopy(text_teacher.network).requires_grad_(True).eval()
    names = [*student.state_dict()]
    distiller = bound(student, text_teacher, review_data, review_data.tokens)
    assert {*dict(distiller.trained["mlm"].named_parameters())} == {
        "bias",
        "norm.bias",
        "norm.weight",
        "transform.bias",
        "transform.weight",
    }
    optimizer = torch.optim.Adam([*student.parameters(), *distiller.trained.parameters()], lr=5e-3)
    batch = next(iter(review_data.train.batches(16, epoch=0, seed=0)))
    torch.manual_seed(0)
    rows = []
    for _ in range(25):
        optimizer.zero_grad()
        rows.append(float(distiller.step(batch, 0.0)["mlm"]))
        optimizer.step()
    assert sum(rows[-5:]) < 0.85 * sum(rows[:5])
    assert [*student.state_dict()] == names


def test_unlabelled_texts_are_guessed_too(
    text_teacher: Any, review_data: Data, bert_folder: Path, tmp_path: Path
) -> None:
    reviews(160, seed=4).to_csv(tmp_path / "more.csv", index=False)
    given: dict[str, Any] = {"tokenizer": str(bert_folder), "rate": 0.2, "select": 0.2}
    more = nas_kd.load_data(str(tmp_path / "more.csv"), length=review_data.resolution, **given)
    how: dict[str, Any] = {"method": "distilbert", "epochs": 2, "batch_size": 16, "warmup_epochs": 0.1}
    how |= {"method_settings": {"mlm": 2.0}, "unlabelled": more, "run": tmp_path / "run", "folder": "s"}
    nas_kd.retrain(deepcopy(text_teacher.network).requires_grad_(True), text_teacher, review_data, **how)
    losses = pd.read_csv(tmp_path / "run" / "s" / "metrics.csv")["mlm"]
    assert (losses > 0).all() and len(losses) == 2


def test_a_tokenizer_without_a_mask_is_refused(text_teacher: Any, review_data: Data) -> None:
    tokens = review_data.tokens
    assert tokens is not None and tokens.mask is not None and tokens.mask in tokens.special
    with pytest.raises(SettingError, match=r"distilbert\.mlm.*a mask token"):
        bound(deepcopy(text_teacher.network), text_teacher, review_data, replace(tokens, mask=None))
