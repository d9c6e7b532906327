"""Texts that student and teacher answer differently are kept as words."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from nas_kd.data import Data
from nas_kd.distill import Classification
from nas_kd.train.disagreements import CHARACTERS, disagreements

pytest.importorskip("transformers")


def test_texts_are_shown_as_words(review_data: Data, review_table: object) -> None:
    answers = torch.eye(2).repeat(len(review_data.test) // 2 + 1, 1)[: len(review_data.test)]
    found = disagreements(Classification(), review_data, answers, answers.flip(1))
    written = {"".join(text.lower().split()) for text in pd.read_csv(str(review_table))["text"]}
    assert len(found) and all("".join(text.split()) in written for text in found["shown"])
    assert found["shown"].str.len().max() <= CHARACTERS
