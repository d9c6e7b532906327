"""Pairs of images: the teacher sees one of another kind than the student, such as depth beside colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nas_kd.config.paths import existing
from nas_kd.data import Batch, load_data
from nas_kd.data.table import read_csv, read_parquet
from nas_kd.errors import SettingError
from nas_kd.teacher.targets import TargetSource

if TYPE_CHECKING:
    from nas_kd.data import Data, Split
    from nas_kd.distill.pair import Pair

SPLITS = ("train", "rate", "select", "test")
POOLS = (SPLITS[:2], SPLITS[:3], SPLITS)  # train and rate share out the same images, often with select or test
HINT = "give both images of a pair the same name in two folders, or name them with pairs_in"


class Pairs:
    """The images of another data set that belong to those of a student's.

    Args:
        images: the other data set, of the same classes, in any splits.
        names: the name of the other image for each name of the student's; None goes by names that are equal but for
            their ending, such as ``cat/7.png`` and ``cat/7.tif`` in two folders. Images of folders ``train/`` and
            ``test/`` may have the same names; then pairs are in folders of the same split.
        field: what messages call the other data set.
    """

    def __init__(self, images: Data, names: Mapping[str, str] | None = None, field: str = "images") -> None:
        self.images = images
        self.names = names
        self.field = field
        self._clean = {name: _unchanged(getattr(images, name)) for name in SPLITS}
        self._place: dict[str, list[tuple[str, str, int]]] = {}  # split, name and row of those of each stem
        for split in SPLITS:
            for row, image in enumerate(getattr(images, split).names):
                self._place.setdefault(_stem(image), []).append((split, image, row))
        self._rows: dict[str, list[tuple[str, int]]] = {}  # by the student's split: where the pair of each image is

    def bind(self, data: Data, splits: Sequence[str] = SPLITS) -> Pairs:
        """Find the pair of every image of the student.

        Args:
            data: the student's.
            splits: those whose images are asked for.

        Raises:
            SettingError: some have none, one of several, or that of another image; or the classes are others.
        """
        if data.classes != self.images.classes:
            expected = f"images of the classes {', '.join(data.classes)}, as the student's"
            raise SettingError(self.field, ", ".join(self.images.classes), expected, "name the folders alike")
        taken: dict[tuple[str, int], str] = {}
        for split in splits:
            names = getattr(data, split).names
            wanted = names if self.names is None else [self.names.get(image, "") for image in names]
            found = [self._find(split, image) for image in wanted]
            missing = [own for own, place in zip(names, found, strict=True) if place is None]
            if missing:
                expected = f"a pair for each image: {len(missing)} of {len(names)} in {split} have none"
                raise SettingError(self.field, missing[0], expected, HINT)
            self._rows[split] = [place for place in found if place is not None]
            for own, place in zip(names, self._rows[split], strict=True):
                if self.names is None and taken.setdefault(place, f"{split} {own}") != f"{split} {own}":
                    expected = f"a pair of its own: {taken[place]} has the same"
                    raise SettingError(self.field, f"{split} {own}", expected, HINT)
        return self

    def _find(self, split: str, wanted: str) -> tuple[str, int] | None:
        """Return split and row of the other image; None where there is none.

        A name may be that of an image of train and of one of test, which lie in folders of their own. So the split
        comes first, and test last.
        """
        known = self._place.get(_stem(wanted), [])
        known = [one for one in known if one[1] == wanted] or known
        several = len({image for _, image, _ in known}) > 1  # with other endings
        for of in (SPLITS,) if several else ((split,), *POOLS):
            places = [(where, row) for where, _, row in known if where in of]
            if len(places) == 1:
                return places[0]
            if places:
                expected = f"an image alone of its name: {len(places)} in {', '.join(where for where, _ in places)}"
                raise SettingError(self.field, wanted, expected, HINT)
        return None

    def shown(self, split: str, index: Tensor) -> Tensor:
        """Return the other images (B, C, H, W) as they are, normalised as their own data.

        Args:
            split: of the student's data.
            index: (B,) image numbers in it.
        """
        places = [self._rows[split][at] for at in index.tolist()]
        found: dict[int, Tensor] = {}
        for name, clean in self._clean.items():
            here = [at for at, (where, _) in enumerate(places) if where == name]
            if here:
                rows = torch.tensor([places[at][1] for at in here])
                batch = next(iter(clean.batches(len(rows), epoch=0, seed=0, order=rows)))
                found.update(zip(here, batch.x, strict=True))
        return torch.stack([found[at] for at in range(len(places))])


class Paired(TargetSource):
    """A teacher of another kind of images, such as depth where the student sees colour: it is shown their pairs.

    The teacher sees its image as it is, whatever is done to the student's. Its images may have other channels and
    another size.

    Args:
        source: what teaches; it is bound to its own images.
        images: the teacher's images.
        names: as of `Pairs`.

    Source: Gupta et al., Cross Modal Distillation for Supervision Transfer, CVPR 2016; Lopez-Paz et al., arXiv
    1511.03643.
    """

    def __init__(self, source: TargetSource, images: Data, names: Mapping[str, str] | None = None) -> None:
        self.source = source.bind(images)
        self.pairs = Pairs(images, names)

    @property
    def fingerprint(self) -> str:
        return f"paired {self.source.fingerprint} {self.pairs.images.fingerprint}"

    def bind(self, data: Data, epochs: int = 0) -> Paired:
        """Find the pair of every image, as `Pairs.bind`."""
        self.pairs.bind(data)
        return self

    def logits(self, batch: Batch) -> Tensor:
        """Return (B, C) logits of the pairs of training images."""
        return self._logits("train", batch.index, batch.y)

    def split_logits(self, name: str, data: Data) -> Tensor:
        """Return (N, C) logits of the pairs of a split, on the CPU."""
        split = getattr(data, name)
        chunks = torch.arange(len(split)).split(512)
        return torch.cat([self._logits(name, index, split.labels[index]).float().cpu() for index in chunks])

    def _logits(self, split: str, index: Tensor, y: Tensor) -> Tensor:
        x = self.pairs.shown(split, index).to(y.device)
        return self.source.logits(Batch(x, y, index, torch.full_like(index, -1)))


class PairedView:
    """What a privileged teacher sees, from a folder: a view of a batch, for `Privileged`.

    Args:
        path: a data set as ``data.train`` names one, of the student's classes, size and channels.

    Raises:
        SettingError: there is no such file or folder.
    """

    def __init__(self, path: str) -> None:
        self.path = str(existing("privileged.images", path, "the teacher's images"))
        self._pairs: Pairs | None = None

    def __repr__(self) -> str:
        return f"PairedView({self.path!r})"

    def open(self, pair: Pair, data: Data) -> None:
        """Read the images, and find the pair of each of the student's training images.

        Raises:
            SettingError: some have none, or other channels.
        """
        images = load_data(self.path, resolution=data.resolution, duplicates="keep")
        if images.in_chans != data.in_chans:
            expected = (
                f"images of {data.in_chans} channels, as the teacher was loaded for; these have {images.in_chans}"
            )
            hint = "in Python nas_kd.distill.Paired(teacher, images) takes others"
            raise SettingError("privileged.images", self.path, expected, hint)
        self._pairs = Pairs(images.normalised(data.mean, data.std), field="privileged.images").bind(data, ("train",))

    def __call__(self, batch: Batch) -> Tensor:
        """Return the pairs of a batch of training images (B, C, H, W)."""
        if self._pairs is None:
            raise ValueError("open the pairs with the student's data first")
        return self._pairs.shown("train", batch.index).to(batch.x.device)


def pairs_in(table: str | Path, student: str, teacher: str) -> dict[str, str]:
    """Read pairs from a table that has the student's images in one column and the teacher's in another.

    Args:
        table: .csv or .parquet file with a row a pair.
        student: column of the student's images, as ``load_data(table, image=...)`` names them.
        teacher: column of the teacher's.

    Returns:
        The teacher's image by the student's.

    Raises:
        SettingError: a column is missing, or a student's image is there twice.
    """
    path = Path(table)
    found = read_parquet("table", path) if path.suffix == ".parquet" else read_csv("table", path, student)
    for name in (student, teacher):
        if name not in found.columns:
            raise SettingError("column", name, f"one of {', '.join(found.columns)}", f"they are the columns of {path}")
    own, others = (list(map(str, found.values(name))) for name in (student, teacher))
    if len(set(own)) < len(own):
        twice = next(image for image in own if own.count(image) > 1)
        raise SettingError(student, twice, "an image a row", "leave all but one of its pairs out")
    return dict(zip(own, others, strict=True))


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix("")) if name else ""


def _unchanged(split: Split) -> Split:
    clean = copy(split)
    clean.augment = None
    return clean
