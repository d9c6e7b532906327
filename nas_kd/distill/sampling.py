"""Samplers of some methods: few classes per batch, pairs, two views, clean or unlabelled images.

Each wraps a training split and has its interface: ``len``, ``steps`` and ``batches``. All draws depend only on
the run's seed and the epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from nas_kd.data import Batch, Split
from nas_kd.errors import SettingError
from nas_kd.nn import inputs
from nas_kd.runtime.seeds import seed_for


class PairedBatch(NamedTuple):
    """A batch of image pairs.

    Args:
        x: (B, C, H, W) images of the student.
        y: (B,) labels of both.
        index: (B,) numbers of the images ``x``.
        view: (B,) their views, or -1.
        other: (B, C, H, W) images of the targets.
    """

    x: Tensor
    y: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, as in Batch
    view: Tensor
    other: Tensor

    def to(self, device: torch.device | str) -> PairedBatch:
        """Return the batch with its images and labels on a device."""
        x, y, other = (part.to(device, non_blocking=True) for part in (self.x, self.y, self.other))
        return self._replace(x=x, y=y, other=other)

    def parts(self, count: int) -> list[PairedBatch]:
        """Split the batch into ``count`` parts of equal size, without a copy."""
        return [PairedBatch(*part) for part in zip(*(x.chunk(count) for x in self), strict=True)]


class Resampled:
    """A training split with another rule to draw batches."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def to(self, device: torch.device | str) -> Resampled:
        """Return a copy with its images on a device; see ``Split.to``."""
        moved = copy(self)
        moved.split = self.split.to(device)
        return moved

    def steps(self, batch_size: int) -> int:
        """Return the number of batches per epoch."""
        return self.split.steps(batch_size)

    def batches(
        self, batch_size: int, *, epoch: int, seed: int, rank: int = 0, world: int = 1
    ) -> Iterator[Batch | PairedBatch]:
        """Iterate over an epoch, depending only on seed and epoch."""
        raise NotImplementedError


def _draws(name: str, seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed_for(seed, name, epoch))


def _pair(own: Batch, other: Batch) -> PairedBatch:
    return PairedBatch(own.x, own.y, own.index, own.view, other.x)


class ClassBalanced(Resampled):
    """Batches of few classes with the same number of images each: the class-uniform sampler.

    Args:
        classes: classes per batch; a batch of 48 with 6 classes has 8 images of each.
        groups: super-class of every class; the classes of a batch are then taken from one super-class after the other:
            the super-class sampler.

    Raises:
        SettingError: fewer classes in the data than ``classes``.

    Source: Peng et al., arXiv 1904.01802, section 3.4.
    """

    def __init__(self, split: Split, classes: int = 6, groups: Sequence[int] | None = None) -> None:
        super().__init__(split)
        labels = split.labels
        members = [torch.nonzero(labels == c)[:, 0] for c in range(int(labels.max()) + 1)]
        self._members = [one for one in members if len(one)]
        if groups is not None and len(groups) != len(self._members):
            expected = f"one super-class for each of the {len(self._members)} classes"
            raise SettingError("cc.groups", list(groups), expected)
        self.classes = min(classes, len(self._members))
        self.groups = groups
        if self.classes < 2:
            raise SettingError("cc.classes", classes, "2 or more classes per batch, and as many in the data")

    def batches(self, batch_size: int, *, epoch: int, seed: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """Iterate over an epoch with the usual number of batches."""
        generator = _draws("class balanced", seed, epoch)
        if batch_size < self.classes:
            raise SettingError("batch_size", batch_size, f"at least {self.classes}, the number of classes per batch")
        order = torch.cat([self._one(batch_size, generator) for _ in range(self.steps(batch_size))])
        yield from self.split.batches(batch_size, epoch=epoch, seed=seed, order=order, rank=rank, world=world)

    def _one(self, batch_size: int, generator: torch.Generator) -> Tensor:
        chosen = self._choose(generator)
        each, more = divmod(batch_size, len(chosen))
        parts = []
        for place, c in enumerate(chosen):
            members = self._members[c]
            count = each + (place < more)
            rounds = [torch.randperm(len(members), generator=generator) for _ in range(-(-count // len(members)))]
            parts.append(members[torch.cat(rounds)[:count]])  # images repeat only in small classes
        return torch.cat(parts)

    def _choose(self, generator: torch.Generator) -> list[int]:
        mixed = torch.randperm(len(self._members), generator=generator).tolist()
        if self.groups is not None:  # ordered by super-class, in the order of their first classes
            first = {group: place for place, group in reversed([(i, self.groups[c]) for i, c in enumerate(mixed)])}
            mixed.sort(key=lambda c: first[self.groups[c]])  # type: ignore[index]
        return mixed[: self.classes]


def super_classes(features: Tensor, labels: Tensor, count: int) -> list[int]:
    """Group classes by the distance of their mean teacher features, for the super-class sampler.

    Args:
        features: (N, D) pooled features of the training images.
        labels: (N,) classes from 0, each with an image.
        count: number of groups, at most the number of classes.

    Returns:
        The group of every class: k-means of the class means, initialised by farthest-point sampling.

    Raises:
        SettingError: more groups than classes, or fewer than one.
    """
    classes = int(labels.max()) + 1
    if not 1 <= count <= classes:
        raise SettingError("cc.groups", count, f"1 to {classes}, the number of classes")
    x = features.double()
    means = torch.stack([x[labels == c].mean(0) for c in range(classes)])
    chosen = [0]
    while len(chosen) < count:
        chosen.append(int(torch.cdist(means, means[chosen]).amin(1).argmax()))
    centres = means[chosen]
    group = torch.full((classes,), -1)
    while True:
        nearest = torch.cdist(means, centres).argmin(1)
        if torch.equal(nearest, group):
            return group.tolist()
        group = nearest
        # an empty group keeps its centre
        found = [means[group == g].mean(0) if (group == g).any() else centres[g] for g in range(count)]
        centres = torch.stack(found)


class ClassPairs(Resampled):
    """Each image with another one of its class: the pair sampler of CS-KD.

    Raises:
        SettingError: a class has only one image.

    Source: Yun et al., arXiv 2003.13964, section 2.1.
    """

    def __init__(self, split: Split) -> None:
        super().__init__(split)
        self._order = split.labels.argsort(stable=True)  # image numbers, class by class
        counts = torch.bincount(split.labels)
        single = torch.nonzero(counts == 1)[:, 0].tolist()
        if single:
            expected = f"at least two training images per class; classes with one image: {single[:5]}"
            raise SettingError("method", "cs_kd", expected, "use another method, or leave these classes out")
        self._counts = counts
        self._starts = counts.cumsum(0) - counts
        self._place = torch.empty_like(self._order)
        self._place[self._order] = torch.arange(len(self._order))

    def partners(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """Draw another image of the same class for each of (B,) image numbers."""
        labels = self.split.labels[index]
        count = self._counts[labels]
        start = self._starts[labels]
        step = 1 + (torch.rand(len(index), generator=generator, dtype=torch.float64) * (count - 1)).long()
        return self._order[start + (self._place[index] - start + step) % count]

    def batches(
        self, batch_size: int, *, epoch: int, seed: int, rank: int = 0, world: int = 1
    ) -> Iterator[PairedBatch]:
        """Iterate over the split once, shuffled; both images of a pair have the same label."""
        generator = _draws("class pairs", seed, epoch)
        order = torch.randperm(len(self), generator=generator)
        other = self.partners(order, generator)
        go = partial(self.split.batches, batch_size, epoch=epoch, seed=seed, rank=rank, world=world)
        for own, partner in zip(go(order=order), go(order=other), strict=True):
            yield _pair(own, partner)


class TwoViews(Resampled):
    """Each image with another augmented view of it.

    Raises:
        SettingError: there is only one view.
    """

    def __init__(self, split: Split) -> None:
        super().__init__(split)
        if split.augment is None or (split.views is not None and len(split.views) < 2):
            expected = "at least two views per image"
            raise SettingError("data.views", 1, expected, "set data.views to 2 or more, or to 0 for fresh crops")

    def batches(
        self, batch_size: int, *, epoch: int, seed: int, rank: int = 0, world: int = 1
    ) -> Iterator[PairedBatch]:
        """Iterate over the split once, shuffled; the other view is that of the next epoch."""
        order = torch.randperm(len(self), generator=_draws("two views", seed, epoch))
        go = partial(self.split.batches, batch_size, seed=seed, order=order, rank=rank, world=world)
        for own, other in zip(go(epoch=epoch), go(epoch=epoch + 1), strict=True):
            yield _pair(own, other)


class CleanBeside(Resampled):
    """Each augmented image with its unaugmented original, which a privileged teacher sees."""

    @property
    def _clean(self) -> Split:
        clean = copy(self.split)
        clean.augment = None
        return clean

    def batches(
        self, batch_size: int, *, epoch: int, seed: int, rank: int = 0, world: int = 1
    ) -> Iterator[PairedBatch]:
        """Iterate over the split once, shuffled."""
        order = torch.randperm(len(self), generator=_draws("clean beside", seed, epoch))
        both = (
            split.batches(batch_size, epoch=epoch, seed=seed, order=order, rank=rank, world=world)
            for split in (self.split, self._clean)
        )
        for own, other in zip(*both, strict=True):
            yield _pair(own, other)


class WithUnlabelled(Resampled):
    """Appends as many unlabelled images to every batch, with the label -1, or NaN where labels are numbers.

    Args:
        images: the split of the unlabelled images; its labels are ignored.
    """

    def __init__(self, split: Split, images: Split) -> None:
        super().__init__(split)
        self.images = images

    def to(self, device: torch.device | str) -> WithUnlabelled:
        """Return the same with all images on a device."""
        return WithUnlabelled(self.split.to(device), self.images.to(device))

    def batches(self, batch_size: int, *, epoch: int, seed: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """Iterate over the labelled images once; the unlabelled ones repeat as often as needed."""
        generator = _draws("unlabelled", seed, epoch)
        needed = self.steps(batch_size) * batch_size
        rounds = -(-needed // len(self.images))
        order = torch.cat([torch.randperm(len(self.images), generator=generator) for _ in range(rounds)])[:needed]
        go = partial(Split.batches, batch_size=batch_size, epoch=epoch, seed=seed, rank=rank, world=world)
        for own, other in zip(go(self.split), go(self.images, order=order), strict=True):
            x = inputs.joined([own.x, other.x])
            index = torch.cat([own.index, other.index])
            unknown = float("nan") if own.y.is_floating_point() else -1
            y = torch.cat([own.y, own.y.new_full((len(other.y), *own.y.shape[1:]), unknown)])
            yield Batch(x, y, index, torch.full_like(index, -1))  # unlabelled images are not cached
