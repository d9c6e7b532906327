"""Small text classifiers of other kinds, which a student has to beat: a bag of embeddings and a BiLSTM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from nas_kd.nn.inputs import IDS, MASK


class _Embedded(nn.Module):
    """A classifier on embeddings of tokens.

    Args:
        vocabulary: number of tokens.
        width: of the embeddings.
        num_classes: number of logits.
    """

    def __init__(self, vocabulary: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.embeddings = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.embeddings.weight, std=0.1)

    def example_inputs(self, number: int, length: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw texts of all tokens."""
        ids = torch.randint(self.embeddings.num_embeddings, (number, length), generator=generator)
        return {IDS: ids, MASK: torch.ones_like(ids)}


class BagOfEmbeddings(_Embedded):
    """The mean of a text's embeddings, and one linear layer.

    Args:
        vocabulary: number of tokens.
        width: of the embeddings.
        num_classes: number of logits.

    Source: Joulin et al., Bag of Tricks for Efficient Text Classification, arXiv 1607.01759.
    """

    def __init__(self, vocabulary: int, width: int, num_classes: int) -> None:
        super().__init__(vocabulary, width, num_classes)
        self.classifier = nn.Linear(width, num_classes)
        self.factory = _factory(type(self), vocabulary=vocabulary, width=width, num_classes=num_classes)

    def macs(self, length: int) -> int:
        """Return the multiply-adds of its linear layer."""
        return self.classifier.in_features * self.num_classes

    def forward(self, x: Mapping[str, Tensor]) -> Tensor:
        """Map texts to logits (B, classes)."""
        real = x[MASK][..., None].to(self.embeddings.weight.dtype)  # (B, L, 1)
        mean = (self.embeddings(x[IDS]) * real).sum(1) / real.sum(1)
        return self.classifier(mean)


class BiLSTM(_Embedded):
    """One bidirectional LSTM, whose last states go through a hidden layer.

    Args:
        vocabulary: number of tokens.
        width: of the embeddings.
        num_classes: number of logits.
        hidden: width of the LSTM, a direction.
        inner: width of the hidden layer.

    Source: Tang et al., Distilling Task-Specific Knowledge from BERT into Simple Neural Networks, arXiv 1903.12136,
    section 3.1.
    """

    def __init__(self, vocabulary: int, width: int, num_classes: int, hidden: int = 150, inner: int = 200) -> None:
        super().__init__(vocabulary, width, num_classes)
        self.lstm = nn.LSTM(width, hidden, batch_first=True, bidirectional=True)
        self.inner = nn.Linear(2 * hidden, inner)
        self.classifier = nn.Linear(inner, num_classes)
        self.factory = _factory(
            type(self), vocabulary=vocabulary, width=width, num_classes=num_classes, hidden=hidden, inner=inner
        )

    def macs(self, length: int) -> int:
        """Return the multiply-adds of its linear maps, those of the LSTM's gates among them, for a text."""
        width, hidden = self.lstm.input_size, self.lstm.hidden_size
        gates = 2 * 4 * hidden * (width + hidden) * length
        return gates + self.inner.in_features * self.inner.out_features + self.inner.out_features * self.num_classes

    def forward(self, x: Mapping[str, Tensor]) -> Tensor:
        """Map texts to logits (B, classes)."""
        lengths = x[MASK].sum(1).cpu()
        packed = pack_padded_sequence(self.embeddings(x[IDS]), lengths, batch_first=True, enforce_sorted=False)
        _, (last, _) = self.lstm(packed)  # (2, B, hidden), of the last real token and the first
        return self.classifier(self.inner(torch.cat([last[0], last[1]], 1)).relu())


def _factory(kind: type[nn.Module], **settings: int) -> tuple[str, dict[str, Any]]:
    return f"{kind.__module__}:{kind.__name__}", settings
