"""Which images are in which split."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nas_kd.data.source import Source
from nas_kd.data.split import HIGHEST, LOWEST, Codes, cut, draw, fewest, rarest_labels
from nas_kd.errors import SettingError

TEST_SHARE = 0.2
STRATUM = 16  # images of a stratum of several labels: enough for four splits
Amount = float | int


class Pool:
    """The images that splits are cut from, whole groups at a time where there are groups.

    Args:
        source: the images; its classes are strata, or the rarest label that an image has; of numbers there is one.
        seed: of the draws.
    """

    def __init__(self, source: Source, seed: int) -> None:
        self.source = source
        self.seed = seed
        self.rows = np.arange(len(source))  # those not yet cut off
        self.classes = len(source.classes) if source.kind == "classes" else 1

    def sizes(self) -> Codes:
        """Return the number of images, or of groups with images, of each class."""
        if self.source.kind != "classes":
            return np.array([len(self.rows if self.source.groups is None else self._votes()[0])])
        if self.source.groups is None:
            return np.bincount(self.source.labels, minlength=self.classes)
        return (self._votes()[2] > 0).sum(0)

    def strata(self) -> Codes:
        """Return the stratum of each image that is not yet cut off."""
        labels = self.source.labels[self.rows]
        if self.source.kind == "classes":
            return labels
        return rarest_labels(labels, STRATUM) if self.source.kind == "multilabel" else np.zeros(len(labels), np.int64)

    def cut(self, purpose: str, low: Amount, high: Amount, keep: int = 1, floor: bool = False) -> Codes:
        """Return codes of the rows as `nas_kd.data.split.cut` does; a count of images is a share of groups.

        Args:
            purpose: salt of the draws.
            floor: keep a least number of images of rare classes in both parts.
        """
        names, strata, unit = self._units(keep + (low > 0) + (high > 0))
        draws = draw(names, self.seed, purpose)
        if unit is not None:
            lower, upper = (float(a / len(self.rows)) if isinstance(a, int) else a for a in (low, high))
            return cut(strata, draws, lower, upper, keep)[unit]
        if not floor:
            return cut(strata, draws, low, high, keep)
        if self.source.kind != "classes" and any(isinstance(a, int) and 0 < a <= strata.max() for a in (low, high)):
            return cut(np.zeros_like(strata), draws, low, high, keep)  # too few images for one of each stratum
        least = fewest(strata, low), fewest(strata, high)
        return cut(strata, draws, low, high, keep, least)

    def _units(self, parts: int) -> tuple[list[str], Codes, Codes | None]:
        """Return name and stratum of what is cut: images, or groups and the group of each image.

        The stratum of a group is the class that most of its images have. Where a class has too few groups of its own
        for all parts, as where most groups have images of several classes, groups are cut by their draws alone.
        """
        strata = self.strata()
        if self.source.groups is None:
            return [self.source.names[row] for row in self.rows.tolist()], strata, None
        groups, unit, votes = self._votes()
        most = votes.argmax(1)
        few = np.bincount(most, minlength=votes.shape[1]).min() < parts
        return groups, np.zeros_like(most) if few else most, unit

    def _votes(self) -> tuple[list[str], Codes, Codes]:
        """Return the groups, the group of each image, and the images of each group and class."""
        assert self.source.groups is not None  # asked for groups alone
        groups, unit = np.unique(self.source.groups[self.rows], return_inverse=True)
        strata = self.strata()
        votes = np.zeros((len(groups), max(self.classes, int(strata.max(initial=0)) + 1)), dtype=np.int64)
        np.add.at(votes, (unit, strata), 1)
        return list(map(str, groups)), unit, votes


def membership(
    source: Source, rate: Amount, select: Amount, seed: int, subset: int | None, held: bool
) -> dict[str, NDArray[np.int64]]:
    """Choose the rows of a source for train, rate, select and test.

    Args:
        rate: share or number of images.
        select: the same; 0 where they are given apart.
        subset: use only this many images besides those of test.
        held: test images are given apart.

    Raises:
        SettingError: a class is too small, or a number out of range.
    """
    pool = Pool(source, seed)
    used = ["train"] + [name for name, amount in (("rate", rate), ("select", select)) if amount]
    least = len(used)
    _check_sizes(pool, least + (not held), ", ".join(used if held else [*used, "test"]), held)
    rows: dict[str, NDArray[np.int64]] = {}
    if not held:
        codes = pool.cut("test", TEST_SHARE, 0, keep=least)
        rows["test"] = pool.rows[codes == LOWEST]
        pool.rows = pool.rows[codes != LOWEST]
    if subset is not None:
        _take(pool, subset, least)
    for name, amount in (("data.rate", rate), ("data.select", select)):
        most = len(pool.rows) - pool.classes * (least - 1)
        if isinstance(amount, int) and amount and not pool.classes <= amount <= most:
            each = " (one per class)" if source.kind == "classes" else ""
            expected = f"0, or {pool.classes}{each} .. {most} of the {len(pool.rows)} training images"
            raise SettingError(name, amount, expected, "choose a number in this range, or a share such as 0.05")
    codes = pool.cut("split", rate, select, floor=True)
    rows["rate"] = pool.rows[codes == LOWEST]
    rows["select"] = pool.rows[codes == HIGHEST]
    rows["train"] = pool.rows[(codes != LOWEST) & (codes != HIGHEST)]
    trained = source.labels[rows["train"]] if source.kind == "classes" else np.zeros(len(rows["train"]), np.int64)
    lost = np.flatnonzero(np.bincount(trained, minlength=pool.classes) == 0)
    if len(lost):
        lacks = f"; {source.classes[lost[0]]!r} has none" if source.kind == "classes" else ""
        expected = f"groups that leave every class images to train on{lacks}"
        raise SettingError("data.group", source.origin, expected, "use another column, or data.rate=0")
    return {name: rows[name] for name in ("train", "rate", "select", "test") if name in rows}


def _check_sizes(pool: Pool, needed: int, splits: str, held: bool) -> None:
    sizes = pool.sizes()
    short = int(sizes.argmin())
    if sizes[short] >= needed:
        return
    source = pool.source
    what = "images" if source.groups is None else "groups"
    classes = source.kind == "classes"
    raise SettingError(
        "data.train",
        source.origin,
        f"at least {needed} {what}{' in every class' if classes else ''}, one each for {splits}",
        f"{f'class {source.classes[short]!r}' if classes else 'it'} has {sizes[short]}: add {what}, or set "
        + ("data.rate=0" if held else "data.test"),
    )


def _take(pool: Pool, subset: int, least: int) -> None:
    """Keep a number of images, class-stratified."""
    count = pool.classes * least
    if not count <= subset <= len(pool.rows):
        expected = f"{count} ({least} per class) .. {len(pool.rows)}, the training images"
        raise SettingError("data.subset", subset, expected, "choose a number in this range, or omit it")
    if subset < len(pool.rows):
        names = [pool.source.names[row] for row in pool.rows.tolist()]
        strata = pool.strata()
        if pool.source.kind != "classes" and subset < least * (strata.max() + 1):
            strata = np.zeros_like(strata)
        codes = cut(strata, draw(names, pool.seed, "subset"), subset, 0, 0, least)
        pool.rows = pool.rows[codes == LOWEST]
