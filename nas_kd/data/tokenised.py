"""What the tokens of texts are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tokenised:
    """What tokens of texts are.

    Args:
        tokenizer: folder that it was read from.
        vocabulary: number of its tokens.
        length: tokens that texts are cut to.
        cut: share of the texts that are longer.
        pairs: whether a text is a pair of two.
        padding: token that texts are padded with.
        mask: token that hides another; None where the tokenizer has none.
        special: tokens that are no words.
    """

    tokenizer: str
    vocabulary: int
    length: int
    cut: float
    pairs: bool
    padding: int
    mask: int | None = None
    special: tuple[int, ...] = ()
