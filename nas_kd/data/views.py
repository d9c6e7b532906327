"""Finite sets of crop-and-flip views, whose teacher logits can be cached."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from nas_kd.errors import SettingError
from nas_kd.runtime.seeds import seed_for


class Views(Protocol):
    """Numbered views of every image, and which of them each epoch shows."""

    pad: int

    @property
    def key(self) -> str:
        """Text that is equal for equal views of the same number of images."""

    @property
    def setting(self) -> int | str:
        """Its value of data.views."""

    def __len__(self) -> int:
        """Return the number of views per image."""

    def at(self, index: Tensor, epoch: int) -> Tensor:
        """Return the view number of each image ``index`` (B,) in an epoch, (B,) int64."""

    def params(self, index: Tensor, view: Tensor | int) -> tuple[Tensor, Tensor, Tensor]:
        """Return top, left and mirrored of views, (B,) each; see `ViewTable.params`."""


class AllViews:
    """Every crop and flip that a padding allows: 162 for pad 4 with flip.

    The number of a view is its code (`decode_view`), which determines crop and flip. In epoch e, image n is
    shown in view ``order[(start_n + step_n e) mod V]`` with step_n coprime to V: every epoch shows all
    images in independent, uniformly drawn views, as fresh crops would, and V epochs show every view of an image
    once. Nothing depends on the seed of a run, so all trainings of E epochs need the same E teacher logits per image.

    Args:
        pad: zero pixels added on each side before the crop.
        flip: whether views may be mirrored left to right.
        seed: seed of the order.
    """

    def __init__(self, n: int, pad: int, flip: bool, seed: int = 0) -> None:
        self.n = n
        self.pad = pad
        self.flip = bool(flip)
        self.seed = seed
        self._count = count_views(pad, flip)
        generator = torch.Generator().manual_seed(seed_for(seed, "all views"))
        # shuffled: otherwise consecutive epochs would show neighbouring crops
        self._shuffled = torch.randperm(self._count, generator=generator)
        steps = torch.tensor([s for s in range(1, self._count + 1) if math.gcd(s, self._count) == 1])
        self._start = torch.randint(self._count, (n,), generator=generator)
        self._step = steps[torch.randint(len(steps), (n,), generator=generator)]

    def __len__(self) -> int:
        return self._count

    @property
    def key(self) -> str:
        """Text that is equal for equal views of the same number of images, in any order."""
        return f"n={self.n} pad={self.pad} flip={self.flip} all"

    @property
    def setting(self) -> str:
        """See `Views`."""
        return "all"

    def at(self, index: Tensor, epoch: int) -> Tensor:
        """Return the view, 0 .. V-1, in which each image ``index`` (B,) is shown in an epoch."""
        return self._shuffled[(self._start[index] + self._step[index] * epoch) % self._count]

    def params(self, index: Tensor, view: Tensor | int) -> tuple[Tensor, Tensor, Tensor]:
        """Return top, left and mirrored of views, (B,) each; see `ViewTable.params`."""
        return decode_view(torch.as_tensor(view).expand_as(index), self.pad)


class ViewTable:
    """K different crop-and-flip views of every image, each image with its own views in its own order.

    In epoch e, image n is shown in view ``permutation_n[e mod K]``, so that K epochs show every view
    once and a cache of teacher outputs serves every later training. Nothing depends on the seed of a run.

    Args:
        pad: zero pixels added on each side before the crop.
        flip: whether views may be mirrored left to right.
        k: views per image, drawn without replacement from the (2 pad + 1)^2 (1 + flip) possible ones.
        seed: seed of the views; tables that differ only in k start with the same views.

    Raises:
        SettingError: k is not in 1 .. the number of possible views.
    """

    def __init__(self, n: int, pad: int, flip: bool, k: int = 8, seed: int = 0) -> None:
        possible = count_views(pad, flip)
        if not 1 <= k <= possible:
            raise SettingError(
                "data.views",
                k,
                f"1 .. {possible}, the number of views that pad={pad} and flip={flip} allow, or all (0: fresh crops)",
                f"set data.views={min(max(k, 1), possible)}, or a larger data.pad",
            )
        self.n = n
        self.pad = pad
        self.flip = bool(flip)
        self.k = k
        self.seed = seed
        self._codes = _ordered_draws(n, possible, k, seed_for(seed, "views"))  # (n, k)
        generator = torch.Generator().manual_seed(seed_for(seed, "view order"))
        self._order = torch.rand(n, k, generator=generator).argsort(dim=1).to(torch.int16)  # (n, k)

    def __len__(self) -> int:
        return self.k

    @property
    def setting(self) -> int:
        """See `Views`."""
        return self.k

    @property
    def key(self) -> str:
        """Text that is equal for tables with equal views of the same number of images."""
        return f"n={self.n} pad={self.pad} flip={self.flip} k={self.k} seed={self.seed}"

    def at(self, index: Tensor, epoch: int) -> Tensor:
        """Return the view, 0 .. K-1, in which each image ``index`` (B,) is shown in an epoch."""
        return self._order[index, epoch % self.k].long()

    def params(self, index: Tensor, view: Tensor | int) -> tuple[Tensor, Tensor, Tensor]:
        """Return top, left (0 .. 2 pad, int64) and mirrored (bool), (B,) each, of views (B,) or of one view for all."""
        codes = self._codes[index, view].long()
        return decode_view(codes, self.pad)


def count_views(pad: int, flip: bool) -> int:
    """Return the number of different crops and flips of an image: (2 pad + 1)^2, twice that with flip."""
    return (2 * pad + 1) ** 2 * (1 + bool(flip))


def decode_view(codes: Tensor, pad: int) -> tuple[Tensor, Tensor, Tensor]:
    """Split view codes into top, left and mirrored; see `ViewTable.params`."""
    side = 2 * pad + 1
    corner = codes % side**2
    return corner // side, corner % side, codes >= side**2


def _ordered_draws(n: int, possible: int, k: int, seed: int) -> Tensor:
    """Draw k of 0 .. possible-1 without replacement for n rows together, by a sparse Fisher-Yates shuffle.

    Only the swapped positions of each row are stored, so that 6,498 possible views of a million images fit in memory.
    """
    generator = torch.Generator().manual_seed(seed)
    positions: list[Tensor] = []
    values: list[Tensor] = []

    def current(position: Tensor) -> Tensor:
        value = position
        for at, put in zip(positions, values, strict=True):  # the latest swap of a position counts
            value = torch.where(at == position, put, value)
        return value

    draws = torch.empty(n, k, dtype=torch.int32)
    for j in range(k):
        position = torch.randint(j, possible, (n,), generator=generator, dtype=torch.int32)
        draws[:, j] = current(position)
        top = current(torch.full((n,), j, dtype=torch.int32))
        positions.append(position)
        values.append(top)
    return draws
