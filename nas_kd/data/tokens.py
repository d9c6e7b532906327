"""Tokenised texts in memory, and splits of them whose batches hold texts of like length."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nas_kd.data.batch import Batch
from nas_kd.data.duplicates import Keys
from nas_kd.data.image_split import EpochPlan, Split, generator_of
from nas_kd.nn.inputs import IDS, MASK
from nas_kd.nn.text import TYPES

AMONG = 32  # batches whose texts are sorted by length: a thousand and more texts are shuffled together
KEY = 16  # bytes of the hash of a text


class TokenStore:
    """Tokens of texts: a row each, padded at its end.

    Args:
        ids: (N, L) int32.
        lengths: (N,) tokens that are no padding.
        types: (N, L) uint8, which of the two texts of a pair a token is of; None where the model is not told.
    """

    def __init__(self, ids: Tensor, lengths: Tensor, types: Tensor | None) -> None:
        self.ids = ids
        self.lengths = lengths
        self.types = types

    @property
    def shape(self) -> tuple[int, ...]:
        """Tokens of a row."""
        return tuple(self.ids.shape[1:])

    @property
    def place(self) -> torch.device:
        """Device on which row numbers are expected."""
        return self.ids.device

    def fetch(self, rows: Tensor, length: int | None = None) -> dict[str, Tensor]:
        """Return the texts of rows.

        Args:
            rows: (B,).
            length: tokens of a row; None is the number of the longest text among them.

        Returns:
            ``input_ids``, ``attention_mask`` and perhaps ``token_type_ids``, (B, L) int64.
        """
        rows = rows.to(self.place)
        lengths = self.lengths[rows]
        longest = int(lengths.max()) if length is None else length
        mask = torch.arange(longest, device=self.place) < lengths[:, None]
        found = {IDS: self.ids[rows, :longest].long(), MASK: mask.long()}
        return found | ({} if self.types is None else {TYPES: self.types[rows, :longest].long()})

    def resident(self, rows: Tensor, device: torch.device) -> TokenStore:
        """Return the texts of rows, in order, on a device."""
        rows = rows.to(self.place)
        types = None if self.types is None else self.types[rows].to(device)
        return TokenStore(self.ids[rows].to(device), self.lengths[rows].to(device), types)

    def digest(self) -> bytes:
        """Hash the tokens."""
        state = hashlib.sha256(self.ids.cpu().numpy().tobytes())
        state.update(self.lengths.cpu().numpy().tobytes())
        if self.types is not None:
            state.update(self.types.cpu().numpy().tobytes())
        return state.digest()

    def keys(self) -> Keys:
        """Hash each text: equal for equal tokens."""
        rows = self.ids.cpu().numpy()
        types = rows[:, :0] if self.types is None else self.types.cpu().numpy()
        return np.array(
            [
                hashlib.blake2b(row.tobytes() + kind.tobytes(), digest_size=KEY).digest()
                for row, kind in zip(rows, types, strict=True)
            ],
            dtype=f"S{KEY}",
        )


class OneView:
    """The one view of every text, so that a teacher's answers are stored once."""

    pad = 0
    key = "one"
    setting = 1

    def __len__(self) -> int:
        return 1

    def at(self, index: Tensor, epoch: int) -> Tensor:
        """Return the view of each text (B,)."""
        return torch.zeros_like(index)

    def params(self, index: Tensor, view: Tensor | int) -> tuple[Tensor, Tensor, Tensor]:
        """Return no crops: texts are not augmented."""
        raise TypeError("texts have no crops")


class TextSplit(Split):
    """Some texts of a data set; arguments as of `Split`, with tokens in the place of pixels."""

    def __init__(
        self,
        name: str,
        tokens: TokenStore,
        rows: Tensor,
        labels: Tensor,
        names: list[str],
        device: str = "cpu",
        length: int | None = None,
    ) -> None:
        self.name = name
        self.names = names
        self.labels = labels
        self.augment = None
        self.length = int(tokens.ids.shape[1]) if length is None else length
        self._tokens = tokens
        self._rows = rows.to(tokens.place)
        self._labels = labels.to(device)

    def __repr__(self) -> str:
        return f"TextSplit({self.name}: {len(self):,} texts)"

    def to(self, device: torch.device | str) -> TextSplit:
        target = torch.empty(0, device=device).device
        if self._tokens.place == target:
            return self
        tokens = self._tokens.resident(self._rows, target)
        return TextSplit(self.name, tokens, torch.arange(len(self)), self.labels, self.names, str(target))

    def normalised(self, affine: Any) -> TextSplit:
        """Return itself: tokens have no normalisation."""
        return self

    @property
    def views(self) -> OneView | None:
        return OneView() if self.name == "train" else None

    def shown(self, index: Tensor, view: Tensor) -> Batch:
        """Return texts as they are, padded to the longest of all: an answer does not depend on others beside it."""
        return self._of(index, view, self.length)

    def _shuffled(self, batch_size: int, epoch: int, seed: int) -> Tensor:
        """Shuffle the texts such that those of a batch are of like length."""
        order = super()._shuffled(batch_size, epoch, seed)
        whole = len(order) // batch_size * batch_size
        lengths = self._tokens.lengths[self._rows].cpu()
        batches: list[Tensor] = []
        for some in order[:whole].split(AMONG * batch_size):
            batches += some[lengths[some].argsort(stable=True)].split(batch_size)
        mixed = torch.randperm(len(batches), generator=generator_of(seed, "batches", epoch)).tolist()
        return torch.cat([*(batches[number] for number in mixed), order[whole:]])

    def _fetch(self, index: Tensor) -> Any:
        return self._tokens.fetch(self._rows[index.to(self._rows.device)])

    def _batch(self, pixels: Any, index: Tensor, view: Tensor | None = None) -> Batch:
        y = self._labels[index.to(self._labels.device)]
        return Batch(pixels, y, index, torch.full_like(index, -1) if view is None else view)

    def _of(self, index: Tensor, view: Tensor | None, length: int | None = None) -> Batch:
        rows = self._rows[index.to(self._rows.device)]
        return self._batch(self._tokens.fetch(rows, length), index, view)

    def _plan(self, order: Tensor, epoch: int, seed: int) -> EpochPlan:
        view = torch.full_like(order, -1) if self.views is None else self.views.at(order, epoch)
        return EpochPlan(order, view, self._rows[order.to(self._rows.device)], self._labels, None)

    def _planned(self, cut: slice, plan: EpochPlan, epoch: int, seed: int) -> Batch:
        return self._of(plan.index[cut], plan.view[cut])
