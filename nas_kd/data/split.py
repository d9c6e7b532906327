"""Assignment of images to splits by name, class and a seed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nas_kd.errors import SettingError

Codes = NDArray[np.int64]
TRAIN = 0
LOWEST = 1
HIGHEST = 2
FEWEST = 8


def draw(names: Sequence[str], *salt: int | str) -> NDArray[np.float64]:
    """Draw a number 0 <= u < 1 for every name, which depends only on the name and the salt (seed and purpose)."""
    start = hashlib.sha256(repr(salt).encode())

    def digest(name: str) -> bytes:
        state = start.copy()
        state.update(name.encode("utf-8", "surrogatepass"))
        return state.digest()[:8]

    raw = np.frombuffer(b"".join(map(digest, names)), dtype=">u8")
    return (raw >> np.uint64(11)).astype(np.float64) / 2**53


def cut(
    labels: NDArray[np.int64],
    u: NDArray[np.float64],
    low: float | int,
    high: float | int,
    keep: int = 1,
    least: int | tuple[Codes, Codes] = 1,
) -> Codes:
    """Split off the images with the lowest and the highest draws of every class.

    A share (float) is a threshold on the draw, so that an image added later moves no other. A class may be far from its
    share by chance: if it is off by more than one and a half standard deviations, its threshold moves by sixteenths of
    the share. An addition moves old images only if it changes this step: one in 25, whereas a split by rank would move
    some in one of four. A count (int) is met exactly: classes contribute in proportion to their size, each with its
    lowest or highest draws.

    Args:
        labels: (N,) class numbers.
        u: (N,) draws.
        low: share or count of images with the lowest draws.
        high: share or count of images with the highest draws.
        keep: images that every class keeps in the middle.
        least: images of every class in a part of nonzero size; or of each class, (C,) for the low and the high part.

    Returns:
        (N,) codes: TRAIN (the middle), LOWEST or HIGHEST.

    Raises:
        SettingError: the counts do not leave ``keep`` images in every class.
    """
    sizes = np.bincount(labels)
    lowest, highest = (least, least) if isinstance(least, int) else least
    least_low = lowest * (low > 0)
    least_high = highest * (high > 0)
    lows = _counts(labels, u, low, least_low, sizes - keep - least_high)
    highs = _counts(labels, 1 - u, high, least_high, sizes - keep - lows)
    codes = np.full(len(labels), TRAIN, dtype=np.int64)
    for c, size in enumerate(sizes):
        members = np.flatnonzero(labels == c)
        members = members[np.argsort(u[members], kind="stable")]
        codes[members[: lows[c]]] = LOWEST
        codes[members[size - highs[c] :]] = HIGHEST
    return codes


def fewest(labels: NDArray[np.int64], amount: float | int) -> Codes:
    """Return the least number of images of each class in a part that scores are measured on.

    Eight, so that one image is not the whole of a class's recall; but at most a quarter of the class, so that two
    such parts leave half of it to train on, and at most half of what a class of average size has in the part, so that
    a thousand classes do not fill it.

    Args:
        labels: (N,) class numbers.
        amount: share or count of the part.
    """
    sizes = np.bincount(labels)
    count = amount if isinstance(amount, int) else amount * len(labels)
    return np.maximum(1, np.minimum(min(FEWEST, int(count / len(sizes) / 2)), sizes // 4))


def rarest_labels(y: NDArray[np.float32], fewest_images: int) -> Codes:
    """Return a stratum (N,) of each image with several labels: the rarest one that it has, so that splits have all.

    From the rarest label on, the images that have it and are of no stratum yet are one; where they are too few to be
    divided, they wait for the next label. What is left, such as images without any label, is the last stratum.

    Args:
        y: (N, L) 0 and 1.
        fewest_images: of a stratum.

    Source: the order of Sechidis, Tsoumakas & Vlahavas 2011; images of a stratum are then divided by their draws.
    """
    strata = np.full(len(y), -1, dtype=np.int64)
    has = y > 0.5
    number = 0
    for label in np.argsort(has.sum(0), kind="stable").tolist():
        mine = has[:, label] & (strata < 0)
        if mine.sum() >= fewest_images:
            strata[mine] = number
            number += 1
    rest = strata < 0
    if number and rest.sum() < fewest_images:
        strata[rest] = number - 1  # the most frequent
    else:
        strata[rest] = number
    return strata


def _counts(
    labels: NDArray[np.int64], u: NDArray[np.float64], amount: float | int, least: int | Codes, most: Codes
) -> Codes:
    """Return the number of images of each class, between ``least`` and ``most``."""
    if isinstance(amount, float):
        below = [_below(u[labels == c], amount) for c in range(len(most))]
        return np.clip(np.array(below), least, most)
    if amount > most.sum():
        expected = f"at most {max(0, int(most.sum()))} images in total"
        raise SettingError("data.rate + data.select", amount, expected, "leave images to train on")
    return apportion(np.bincount(labels), amount, least, most)


def _below(u: NDArray[np.float64], share: float) -> int:
    """Count the draws below the threshold that is nearest to ``share`` among those with about that share."""
    target = share * len(u)
    counts = {step: int((u < share * (1 + step / 16)).sum()) for step in range(-12, 13)}
    near = [step for step, count in counts.items() if abs(count - target) <= 1.5 * max(1.0, target**0.5)]
    if near:
        return counts[min(near, key=lambda step: (abs(step), step))]
    return min(counts.values(), key=lambda count: abs(count - target))


def apportion(sizes: Codes, total: int, least: int | Codes, most: Codes) -> Codes:
    """Divide a total over classes in proportion to their sizes, by largest remainders within bounds.

    Args:
        sizes: (C,) images of each class.
        total: the sum of the counts, between the sums of the bounds.
        least: lower bound of every class, or of each (C,).
        most: (C,) upper bounds of the classes.
    """
    quota = total * sizes / sizes.sum()
    counts = np.clip(np.floor(quota).astype(np.int64), least if total else 0, most)
    while counts.sum() != total:
        step = 1 if counts.sum() < total else -1
        open_ = counts < most if step > 0 else counts > least
        gap = np.where(open_, step * (quota - counts), -np.inf)
        counts[int(np.argmax(gap))] += step
    return counts


def stratified_order(labels: NDArray[np.int64], u: NDArray[np.float64]) -> Codes:
    """Return image numbers (N,) ordered by the draws ``u`` such that every prefix is class-stratified."""
    place = np.empty(len(labels))
    for c in np.unique(labels):
        members = np.flatnonzero(labels == c)
        members = members[np.argsort(u[members], kind="stable")]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.lexsort((labels, place))
