"""A data set split into train, rate, select and test."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nas_kd.data.augment import Affine
from nas_kd.data.config import Kind
from nas_kd.data.found import Found
from nas_kd.data.image_split import Split

if TYPE_CHECKING:
    import pandas as pd

    from nas_kd.data.tokenised import Tokenised


@dataclass(frozen=True, eq=False)
class Data:
    """A data set in four splits.

    ``kind`` says what the labels of the splits are: "classes", (N,) int64 class numbers, named by ``classes``;
    "multilabel", (N, L) float32 of 0 and 1; or "regression", (N, L) float32. Of the latter two ``classes`` and
    ``label_names`` are the names of the L columns; of classes ``label_names`` is empty. ``mean`` and ``std`` are the
    train split's, one per channel in 0..1 units; ``fingerprint`` changes with any name, label, membership or pixel.
    ``unreadable`` lists name and class number (-1 where there are no classes) of the images that were skipped.
    ``found`` says what else was found and left out. Of texts ``tokens`` says what these are made of; they count as
    having one channel, and ``resolution`` is their length in tokens.
    """

    train: Split
    rate: Split
    select: Split
    test: Split
    classes: tuple[str, ...]
    in_chans: int
    resolution: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    unreadable: tuple[tuple[str, int], ...] = ()
    kind: Kind = "classes"
    balance: str = "none"
    found: Found = Found()
    tokens: Tokenised | None = None

    @property
    def num_classes(self) -> int:
        """The number of classes, or of label columns: of a network's outputs."""
        return len(self.classes)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of the label columns; empty for classes."""
        return () if self.kind == "classes" else self.classes

    @property
    def augmentation(self) -> dict[str, int | bool | str | None]:
        """How training images are drawn and changed, where not plainly: settings that the fingerprint leaves out."""
        drawn: dict[str, int | bool | str | None] = {} if self.balance == "none" else {"data.balance": self.balance}
        return drawn | (self.train.augment.settings if self.train.augment else {})

    @property
    def splits(self) -> tuple[Split, Split, Split, Split]:
        """Train, rate, select and test."""
        return self.train, self.rate, self.select, self.test

    def to(self, device: torch.device | str) -> Data:
        """Return the data with the images of every split on a device; see `Split.to`."""
        train, rate, select, test = (split.to(device) for split in self.splits)
        return replace(self, train=train, rate=rate, select=select, test=test)

    def normalised(self, mean: Sequence[float], std: Sequence[float]) -> Data:
        """Return the data normalised with other statistics, such as those a pretrained network expects.

        Args:
            mean: one number per channel, in 0..1 units.
            std: the same.
        """
        if self.tokens is not None:  # tokens have no normalisation
            return self
        affine = Affine(tuple(mean), tuple(std))
        train, rate, select, test = (split.normalised(affine) for split in self.splits)
        mark = "" if (tuple(mean), tuple(std)) == (self.mean, self.std) else f" mean={list(mean)} std={list(std)}"
        return replace(
            self,
            train=train,
            rate=rate,
            select=select,
            test=test,
            mean=tuple(mean),
            std=tuple(std),
            fingerprint=self.fingerprint + mark,
        )

    def spoken(self, sentence: str) -> str:
        """Put texts in the place of images in a sentence, where the data are texts.

        Args:
            sentence: written of images.
        """
        return self.train.spoken(sentence)

    def frame(self) -> pd.DataFrame:
        """List every image: columns name, label and split, the content of data.csv.

        The label is the class number; for multi-label and regression there is a column ``label_NAME`` of each. Skipped
        images have the split ``unreadable``.
        """
        import pandas as pd

        lost = len(self.unreadable)
        labels = np.concatenate([split.labels.numpy() for split in self.splits])  # (N,) or (N, L)
        if self.kind == "classes":
            columns = {"label": np.concatenate([labels, np.array([c for _, c in self.unreadable], dtype=np.int64)])}
        else:
            gaps = np.full((lost, labels.shape[1]), np.nan, dtype=np.float32)
            values = np.concatenate([labels, gaps])
            columns = {f"label_{name}": values[:, at] for at, name in enumerate(self.classes)}
        return pd.DataFrame(
            {
                "name": [n for split in self.splits for n in split.names] + [n for n, _ in self.unreadable],
                **columns,
                "split": [split.name for split in self.splits for _ in split.names] + ["unreadable"] * lost,
            }
        )


def fingerprint_of(classes: tuple[str, ...], kind: Kind, splits: Mapping[str, Split], stores: Sequence[Any]) -> str:
    """Hash names, labels, membership and content.

    Args:
        classes: names of classes or of columns of labels.
        kind: of the labels.
        splits: by name.
        stores: of pixels or tokens, each with a ``shape`` and a ``digest``.
    """
    state = hashlib.sha256(repr((classes, [store.shape for store in stores])).encode())
    if kind != "classes":
        state.update(kind.encode())
    for name, split in splits.items():
        state.update("\n".join([name, *split.names, ""]).encode())
        state.update(split.labels.numpy().tobytes())
    for store in stores:
        state.update(store.digest())
    return state.hexdigest()
