"""Tiny text classifiers with a vocabulary trained on the spot, and texts that they can learn; no network is needed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import nas_kd
from nas_kd.data import Data
from nas_kd.teacher import Teacher

GOOD = ("good", "great", "lovely", "brilliant", "superb", "charming")
BAD = ("bad", "awful", "boring", "dreadful", "clumsy", "dull")
PLAIN = ("the", "film", "was", "a", "story", "of", "two", "people", "in", "town", "with", "some", "music", "and", "it")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def reviews(count: int = 240, seed: int = 0) -> pd.DataFrame:
    """Write texts of 5 to 20 words: a few of one kind say which of two classes, ``neg`` or ``pos``, a text is of."""
    draws = random.Random(seed)
    rows = []
    for number in range(count):
        label = number % 2
        words = [draws.choice(PLAIN) for _ in range(draws.randint(4, 16))]
        for _ in range(draws.randint(1, 4)):
            words.insert(draws.randint(0, len(words)), draws.choice((BAD, GOOD)[label]))
        rows.append({"text": " ".join(words), "label": ("neg", "pos")[label]})
    return pd.DataFrame(rows)


def tokenizer(folder: Path, texts: Sequence[str] = (), size: int = 120) -> Any:
    """Train a WordPiece vocabulary, and save a tokenizer of BERT's kind."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertTokenizerFast

    trained = BertWordPieceTokenizer()
    given = texts or reviews()["text"].tolist()
    trained.train_from_iterator(given, vocab_size=size, special_tokens=list(SPECIAL), show_progress=False)
    (folder / "vocab.txt").parent.mkdir(parents=True, exist_ok=True)
    trained.save_model(str(folder))
    made = BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=64)
    made.save_pretrained(folder)
    return made


def bert(folder: Path, *, labels: int = 2, layers: int = 4, seed: int = 0, **settings: Any) -> Any:
    """Save a tiny BERT for sequences beside its tokenizer, with weights that are not its first ones."""
    from transformers import BertConfig, BertForSequenceClassification

    made = tokenizer(folder)
    torch.manual_seed(seed)
    config = BertConfig(
        **{
            "vocab_size": len(made),
            "hidden_size": 32,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "intermediate_size": 48,
            "max_position_embeddings": 64,
            "num_labels": labels,
            **settings,
        }
    )
    body = BertForSequenceClassification(config).eval()
    with torch.no_grad():
        for parameter in body.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    body.save_pretrained(folder)
    return body


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a tiny BERT for two classes, with its tokenizer."""
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("bert")
    bert(folder)
    return folder


@pytest.fixture(scope="session")
def review_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .csv of texts and labels."""
    path = tmp_path_factory.mktemp("texts") / "reviews.csv"
    reviews().to_csv(path, index=False)
    return path


@pytest.fixture(scope="session")
def review_data(bert_folder: Path, review_table: Path) -> Data:
    """These texts, tokenised."""
    return nas_kd.load_data(str(review_table), tokenizer=str(bert_folder), rate=0.2, select=0.2)


@pytest.fixture(scope="session")
def text_teacher(bert_folder: Path, review_data: Data) -> Teacher:
    """The tiny BERT, bound to these texts."""
    return nas_kd.load_teacher(str(bert_folder)).bind(review_data)
