"""Small text classifiers: padding changes nothing, and a BiLSTM is torch's own run text by text."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nas_kd.nn.text_rivals import BagOfEmbeddings, BiLSTM

LENGTHS = (6, 2, 4)


def texts() -> dict[str, Tensor]:
    mask = torch.tensor([[number < length for number in range(6)] for length in LENGTHS]).long()
    return {"input_ids": torch.randint(50, (3, 6), generator=torch.Generator().manual_seed(0)), "attention_mask": mask}


@pytest.mark.parametrize("kind", [BagOfEmbeddings, BiLSTM])
def test_padding_changes_nothing(kind: Any) -> None:
    torch.manual_seed(0)
    net = kind(50, 12, 3).eval()
    x = texts()
    spoilt = {**x, "input_ids": x["input_ids"].where(x["attention_mask"].bool(), 7)}
    longer = {name: F.pad(part, (0, 5)) for name, part in x.items()}
    torch.testing.assert_close(net(spoilt), net(x))
    torch.testing.assert_close(net(longer), net(x))


def test_answers_are_those_of_each_text_alone() -> None:
    torch.manual_seed(0)
    bag, lstm = BagOfEmbeddings(50, 12, 3), BiLSTM(50, 12, 3, hidden=5)
    x = texts()
    for row, length in enumerate(LENGTHS):
        ids = x["input_ids"][row, :length]
        torch.testing.assert_close(bag(x)[row], bag.classifier(bag.embeddings.weight[ids].mean(0)))
        out, _ = lstm.lstm(lstm.embeddings(ids)[None])
        ends = torch.cat([out[0, -1, :5], out[0, 0, 5:]])
        torch.testing.assert_close(lstm(x)[row], lstm.classifier(lstm.inner(ends).relu()))
