"""A masked language model of a student: it guesses tokens of its texts, labelled or not, that are hidden from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd.distill.pair import Pair
from nas_kd.errors import SettingError
from nas_kd.nn.inputs import IDS, real_tokens

if TYPE_CHECKING:
    from nas_kd.data.tokenised import Tokenised

SHARE = 0.15  # of the tokens, that are guessed
HIDDEN = 0.8  # of these are replaced by the mask
OTHER = 0.9  # up to this share by any token; the rest stays


def hide(ids: Tensor, real: Tensor, tokens: Tokenised, draws: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Hide tokens as BERT does.

    Args:
        ids: (B, L) int64.
        real: (B, L) bool, which are no padding.
        tokens: what they are.
        draws: (2, B, L) in 0..1: which tokens are guessed, and what stands in their place.
        others: (B, L) tokens at random.

    Returns:
        (B, L) what the network sees, and (B, L) bool which tokens it guesses; special ones never.

    Source: Devlin et al., BERT, arXiv 1810.04805, section 3.1.
    """
    special = torch.isin(ids, torch.tensor(tokens.special, dtype=ids.dtype, device=ids.device))
    guessed = real & ~special & (draws[0] < SHARE)
    assert tokens.mask is not None  # `MaskedWords` has looked
    seen = ids.masked_fill(guessed & (draws[1] < HIDDEN), tokens.mask)
    return torch.where(guessed & (draws[1] >= HIDDEN) & (draws[1] < OTHER), others, seen), guessed


class MaskedWords(nn.Module):
    """The cross-entropy of hidden tokens, guessed by a small head on the student's own table of embeddings.

    Args:
        pair: of a text student whose tokenizer has a mask.

    Raises:
        SettingError: it is none, or its tokenizer has no mask.

    Source: Sanh et al., DistilBERT, arXiv 1910.01108, section 3.
    """

    single_process = True  # its second pass through the student is none that processes agree on

    def __init__(self, pair: Pair) -> None:
        super().__init__()
        tokens = pair.tokens
        if tokens is None or tokens.mask is None:
            given = None if tokens is None else tokens.tokenizer
            raise SettingError("distilbert.mlm", given, "a tokenizer with a mask token", "leave distilbert.mlm out")
        self.tokens = tokens
        self._pair = [pair]  # in a list, as the student is no part of this module
        table = self._table
        self.transform = nn.Linear(pair.student.stages[-1][-1], table.shape[1])
        self.norm = nn.LayerNorm(table.shape[1], eps=1e-12)
        self.bias = nn.Parameter(torch.zeros(len(table)))

    @property
    def _table(self) -> Tensor:
        """The student's embeddings of tokens, (V, D)."""
        network: Any = self._pair[0].model
        weight: Tensor = network.body.get_input_embeddings().weight
        return weight

    def forward(self, student: Sequence[Tensor], batch: Any) -> Tensor:
        """Return the mean over guessed tokens.

        Args:
            student: states of the texts as they are, which are not needed.
            batch: the texts.
        """
        ids, real = batch.x[IDS], real_tokens(batch.x)
        assert real is not None  # `check_texts` has looked
        draws = torch.rand(2, *ids.shape, device=ids.device)  # the loop seeds these at every step
        others = torch.randint(self.tokens.vocabulary, ids.shape, device=ids.device)
        seen, guessed = hide(ids, real, self.tokens, draws, others)
        again: Any = {**batch.x, IDS: seen}
        states = self._pair[0].forward(again).stages[-1]  # (B, L, D)
        words = F.linear(self.norm(F.gelu(self.transform(states[guessed]))), self._table, self.bias)  # (T, V)
        return F.cross_entropy(words.float(), ids[guessed], reduction="sum") / guessed.sum().clamp_min(1)
