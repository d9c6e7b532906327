"""Images of equal pixels: refused between test and training, put into one split elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nas_kd.errors import SettingError

Keys = NDArray[np.bytes_]
Rows = dict[str, NDArray[np.int64]]


class Equal(NamedTuple):
    """Images of equal pixels.

    Args:
        images: that have a twin.
        moved: that were put into the split of their twin.
        apart: that have a twin in another split.
        labels: that have a twin of another label.
    """

    images: int = 0
    moved: int = 0
    apart: int = 0
    labels: int = 0


def joined(keys: Keys, groups: NDArray[Any]) -> NDArray[np.int64]:
    """Number images such that those of one group have one number, and those of groups that share an equal image.

    Args:
        keys: (N,) hashes of the images.
        groups: (N,) names of their groups.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    image = np.unique(keys, return_inverse=True)[1]
    group = np.unique(groups, return_inverse=True)[1] + image.max() + 1
    size = int(group.max()) + 1
    links = coo_matrix((np.ones(len(keys)), (image, group)), shape=(size, size))
    return connected_components(links, directed=False)[1][image].astype(np.int64)


def together(
    rows: Rows,
    used: NDArray[np.int64],
    keys: Keys | NDArray[np.int64],
    draws: NDArray[np.float64],
    labels: NDArray[np.int64],
) -> tuple[Rows, int]:
    """Put equal images into the split of the one whose draw is the smallest; the others stay where they are.

    They are left apart where a split would lose a class, as with images that are all equal.

    Args:
        rows: split to its rows of the pool, disjoint.
        used: (N,) all of these rows, sorted; keys, draws and labels are theirs.
        keys: (N,) hashes of the images, or numbers; what has equal ones goes to one split.
        draws: (N,) numbers that depend on the names alone.
        labels: (N,) class numbers.

    Returns:
        The rows of each split, and how many images were moved.
    """
    _, twin, counts = np.unique(keys, return_inverse=True, return_counts=True)
    if counts.max() == 1:
        return rows, 0
    split = np.empty(len(used), dtype=np.int64)
    for number, mine in enumerate(rows.values()):
        split[np.searchsorted(used, mine)] = number
    first = np.empty(len(counts), dtype=np.int64)
    order = np.argsort(-draws, kind="stable")
    first[twin[order]] = order  # the smallest draw is written last
    new = split[first[twin]]
    classes = int(labels.max()) + 1
    for number in range(len(rows)):
        before, after = (np.bincount(labels[which == number], minlength=classes) for which in (split, new))
        if ((before > 0) & (after == 0)).any():
            return rows, 0
    return {name: used[new == number] for number, name in enumerate(rows)}, int((new != split).sum())


def count_equal(keys: Mapping[str, Keys], labels: Mapping[str, NDArray[np.int64]], moved: int) -> Equal:
    """Count images of equal pixels in splits.

    Args:
        keys: split to the keys of its images.
        labels: split to their class numbers; empty where there are no classes.
        moved: how many were put together.
    """
    every = np.concatenate([*keys.values()])
    _, twin, counts = np.unique(every, return_inverse=True, return_counts=True)
    if counts.max() == 1:
        return Equal()

    def differing(values: NDArray[np.int64]) -> int:
        """Count the images among whose twins there are two values."""
        low = np.full(len(counts), np.iinfo(np.int64).max)
        high = np.full(len(counts), -1)
        np.minimum.at(low, twin, values)
        np.maximum.at(high, twin, values)
        return int((low != high)[twin].sum())

    split = np.repeat(np.arange(len(keys)), [len(part) for part in keys.values()])
    classes = np.concatenate([*labels.values()]) if labels else np.zeros(len(every), dtype=np.int64)
    return Equal(int((counts > 1)[twin].sum()), moved, differing(split), differing(classes))


def check_test(
    splits: Mapping[str, tuple[Keys, list[str]]], noun: str = "images", same: str = "have the pixels of"
) -> None:
    """Refuse test images that are training images too.

    Args:
        splits: split to the hashes and the names of its images.
        noun: what they are.
        same: how those that are refused are like training images.

    Raises:
        SettingError: naming the first.
    """
    keys, names = splits["test"]
    seen = {
        key: f"{split}: {name}"
        for split, part in splits.items()
        if split != "test"
        for key, name in zip(*part, strict=True)
    }
    leaked = [at for at, key in enumerate(keys) if key in seen]
    if leaked:
        first = leaked[0]
        found = f"{len(leaked)} of {len(names)} test {noun} {same} training {noun}, such as {names[first]}"
        hint = "delete them from one of the two, or set data.duplicates=keep"
        expected = f"test {noun} that no training sees ({seen[keys[first]]} is equal)"
        raise SettingError("data.test", found, expected, hint)
