"""Which images or texts are in which split, equal ones together, and where their contents are stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nas_kd.data.config import DataConfig
from nas_kd.data.duplicates import Equal, Keys, check_test, count_equal, joined, together
from nas_kd.data.membership import membership
from nas_kd.data.source import Source
from nas_kd.data.split import draw

SPLITS = ("train", "rate", "select", "test")


class Place(NamedTuple):
    """The images or texts of a split.

    Args:
        home: name of the source that they are of.
        at: (N,) rows of the store that has the used rows of this source.
        labels: (N,) class numbers, or (N, L) float32.
        names: one each.
        keys: (N,) hashes of their contents.
    """

    home: str
    at: NDArray[np.int64]
    labels: NDArray[Any]
    names: list[str]
    keys: Keys


class Members:
    """The rows of each split: of the training source, but for splits that are given apart.

    Args:
        sources: train, and select and test where these are given apart.
        config: shares, seed, subset, and what is done with equal rows.

    Raises:
        SettingError: a class is too small for all splits, or a number is out of range.
    """

    def __init__(self, sources: Mapping[str, Source], config: DataConfig) -> None:
        self.sources = sources
        self.config = config
        self.pool = sources["train"]
        select = 0 if "select" in sources else config.select
        held = "test" in sources
        self.rows = membership(self.pool, config.rate, select, config.seed, config.subset, held=held)
        if "select" in sources:
            del self.rows["select"]
        apart = {name: np.arange(len(sources[name])) for name in ("select", "test") if name in sources}
        # the rows of each source whose contents are stored
        self.used = {"train": np.sort(np.concatenate(list(self.rows.values())))} | apart
        self.moved = 0  # how many were put into the split of their equal

    def placed(self, keys: Mapping[str, Keys]) -> dict[str, Place]:
        """Put equal rows into one split, unless they are to stay as they are, and return what each split has.

        Args:
            keys: hashes of the contents of the used rows of each source.
        """
        pool, used = self.pool, self.used["train"]
        if self.config.duplicates == "stop":
            draws = draw([pool.names[row] for row in used], self.config.seed, "split")
            labels = pool.labels[used] if pool.kind == "classes" else np.zeros(len(used), dtype=np.int64)
            equal = keys["train"] if pool.groups is None else joined(keys["train"], pool.groups[used])
            self.rows, self.moved = together(self.rows, used, equal, draws, labels)
        return {name: self._place(name, keys) for name in SPLITS}

    def _place(self, name: str, keys: Mapping[str, Keys]) -> Place:
        home = name if name in self.used else "train"
        source = self.sources[home]
        rows = self.rows[name] if home == "train" else self.used[home]
        at = np.searchsorted(self.used[home], rows)
        return Place(home, at, source.labels[rows], [source.names[row] for row in rows], keys[home][at])

    def check_equal(self, places: Mapping[str, Place], *nouns: str) -> Equal:
        """Refuse test rows that training has too, unless they are to stay as they are, and count equal rows.

        Args:
            places: of all splits.
            nouns: as of `check_test`.

        Raises:
            SettingError: naming the first.
        """
        if self.config.duplicates == "stop" and "test" in self.sources:
            check_test({name: (place.keys, place.names) for name, place in places.items()}, *nouns)
        numbers = {name: place.labels for name, place in places.items()} if self.pool.kind == "classes" else {}
        return count_equal({name: place.keys for name, place in places.items()}, numbers, self.moved)
