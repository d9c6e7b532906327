"""Tokenised texts, and splits of them whose batches hold texts of like length."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nas_kd.config.nouns import spoken
from nas_kd.data.batch import Batch
from nas_kd.data.duplicates import Keys
from nas_kd.data.image_split import EpochPlan, Split, generator_of
from nas_kd.nn.inputs import IDS, MASK
from nas_kd.nn.text import TYPES

AMONG = 32  # batches whose texts are sorted by length: a thousand and more texts are shuffled together
KEY = 16  # bytes of the hash of a text


class TokenStore:
    """Tokens of texts, one text behind the other; in batches they are padded at their ends.

    Args:
        ids: (T,) int32, in memory or mapped from a file.
        starts: (N + 1,) int64, where each text begins, and where the last one ends.
        types: (T,) uint8, which of the two texts of a pair a token is of; None where the model is not told.
        padding: token that texts are padded with.
        length: tokens that texts are cut to.
    """

    def __init__(self, ids: Tensor, starts: Tensor, types: Tensor | None, padding: int, length: int) -> None:
        self.ids = ids
        self.starts = starts
        self.types = types
        self.padding = padding
        self.length = length
        self.folder: Path | None = None  # of the files that they are mapped from
        self._digest: bytes | None = None

    @classmethod
    def mapped(cls, folder: Path, padding: int, length: int, typed: bool) -> TokenStore:
        """Map the files of a folder into memory; nothing is written to them.

        Args:
            folder: with ids.bin, starts.bin and types.bin.
            padding: as of the class.
            length: as of the class.
            typed: whether there are types.
        """
        ids = torch.from_numpy(np.memmap(folder / "ids.bin", dtype=np.int32, mode="c"))
        types = torch.from_numpy(np.memmap(folder / "types.bin", dtype=np.uint8, mode="c")) if typed else None
        starts = torch.from_numpy(np.fromfile(folder / "starts.bin", dtype=np.int64))
        found = cls(ids, starts, types, padding, length)
        found.folder = folder
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        """Hand another process the folder, where there is one, in the place of the tokens."""
        if self.folder is not None:
            return TokenStore.mapped, (self.folder, self.padding, self.length, self.types is not None)
        return TokenStore, (self.ids, self.starts, self.types, self.padding, self.length)

    @property
    def lengths(self) -> Tensor:
        """Tokens of each text, (N,)."""
        return self.starts.diff()

    @property
    def shape(self) -> tuple[int, ...]:
        """The most tokens of a text."""
        return (self.length,)

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
        first = self.starts[rows][:, None]  # (B, 1)
        counts = self.starts[rows + 1][:, None] - first
        longest = int(counts.max()) if length is None else length
        at = torch.arange(longest, device=self.place)
        real = at < counts  # (B, L)
        index = (first + at).clamp(max=len(self.ids) - 1)
        found = {IDS: self.ids[index].long().masked_fill(~real, self.padding), MASK: real.long()}
        return found | ({} if self.types is None else {TYPES: self.types[index].long().masked_fill(~real, 0)})

    def resident(self, rows: Tensor, device: torch.device) -> TokenStore:
        """Return the texts of rows, in order, on a device."""
        rows = rows.to(self.place)
        counts = self.starts[rows + 1] - self.starts[rows]
        starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        index = torch.arange(int(starts[-1]), device=self.place) + (self.starts[rows] - starts[:-1]).repeat_interleave(
            counts
        )
        types = None if self.types is None else self.types[index].to(device)
        return TokenStore(self.ids[index].to(device), starts.to(device), types, self.padding, self.length)

    def digest(self) -> bytes:
        """Hash the tokens, once."""
        if self._digest is None:
            state = hashlib.sha256()
            for part in (self.ids, self.starts, self.types):
                for some in () if part is None else part.split(2**22):
                    state.update(some.cpu().numpy().tobytes())
            self._digest = state.digest()
        return self._digest

    def keys(self) -> Keys:
        """Hash each text: equal for equal tokens."""
        ids, starts = self.ids.cpu().numpy(), self.starts.tolist()
        types = ids[:0].astype(np.uint8) if self.types is None else self.types.cpu().numpy()
        return np.array(
            [
                hashlib.blake2b(ids[start:end].tobytes() + types[start:end].tobytes(), digest_size=KEY).digest()
                for start, end in pairwise(starts)
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
        self.length = tokens.length if length is None else length
        self._tokens = tokens
        self._rows = rows.to(tokens.place)
        self._labels = labels.to(device)

    def __repr__(self) -> str:
        return f"TextSplit({self.name}: {len(self):,} texts)"

    def spoken(self, sentence: str) -> str:
        return spoken(sentence, True)

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
