"""Finite sets of crop-and-flip views, whose teacher logits are computed once."""

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
        """Text that is equal for equal views of equally many images."""

    @property
    def setting(self) -> int | str:
        """Its value of data.views."""

    def __len__(self) -> int:
        """Return how many views an image has."""

    def at(self, index: Tensor, epoch: int) -> Tensor:
        """Return the view number of each image ``index`` (B,) in an epoch, (B,) int64."""

    def params(self, index: Tensor, view: Tensor | int) -> tuple[Tensor, Tensor, Tensor]:
        """Return top, left and mirrored of views, (B,) each; see `ViewTable.params`."""


class AllViews:
    """Every crop and flip that a padding allows: pad 4 and flip make 162.

    The number of a view is its code (`decode_view`), which alone determines the crop and flip. In epoch e image n is
    shown in its view ``deck[(start_n + step_n e) mod V]`` with step_n coprime to V: every epoch shows all
    images in independent, evenly drawn views, as fresh crops would, and V epochs show every view of an image
    once. Nothing here depends on a run's seed, so all trainings of E epochs need the same E teacher logits per image.

    Args:
        pad: zero pixels added on each side before the crop.
        flip: whether views may be mirrored left to right.
        seed: the seed of the order.
    """

    def __init__(self, n: int, pad: int, flip: bool, seed: int = 0) -> None:
        self.n = n
        self.pad = pad
        self.flip = bool(flip)
        self.seed = seed
        self._count = count_views(pad, flip)
        generator = torch.Generator().manual_seed(seed_for(seed, "all views"))
        # a walk through a shuffled deck: without it neighbouring epochs would show neighbouring crops
        self._deck = torch.randperm(self._count, generator=generator)
        steps = torch.tensor([s for s in range(1, self._count + 1) if math.gcd(s, self._count) == 1])
        self._start = torch.randint(self._count, (n,), generator=generator)
        self._step = steps[torch.randint(len(steps), (n,), generator=generator)]

    def __len__(self) -> int:
        return self._count

    @property
    def key(self) -> str:
        """Text that is equal for equal views of equally many images; their order is not in it."""
        return f"n={self.n} pad={self.pad} flip={self.flip} all"

    @property
    def setting(self) -> str:
        """Its setting."""
        return "all"

    def at(self, index: Tensor, epoch: int) -> Tensor:
        """Return the view, 0 .. V-1, in which each image ``index`` (B,) is shown in an epoch."""
        return self._deck[(self._start[index] + self._step[index] * epoch) % self._count]

    def params(self, index: Tensor, view: Tensor | int) -> tuple[Tensor, Tensor, Tensor]:
        """Return top, left and mirrored of views, (B,) each; see `ViewTable.params`."""
        return decode_view(torch.as_tensor(view).expand_as(index), self.pad)


class ViewTable:
    """K different crop-and-flip views of every image, each image with its own views in its own order.

    In epoch e image n is shown in its view ``permutation_n[e mod K]``, so that K epochs show every view
    once and a cache of teacher outputs serves every later training. Nothing here depends on a run's seed.

    Args:
        pad: zero pixels added on each side before the crop.
        flip: whether views may be mirrored left to right.
        k: views an image, drawn without replacement of the (2 pad + 1)^2 (1 + flip) possible ones.
        seed: the seed of the views. Tables that differ in k only begin with the same views.

    Raises:
        SettingError: k is not in 1 .. the number of possible views.
    """

    def __init__(self, n: int, pad: int, flip: bool, k: int = 8, seed: int = 0) -> None:
        possible = count_views(pad, flip)
        if not 1 <= k <= possible:
            raise SettingError(
                "data.views",
                k,
                f"1 .. {possible}, the different views that pad={pad} and flip={flip} allow, or all (0: fresh crops)",
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
        """Its setting."""
        return self.k

    @property
    def key(self) -> str:
        """Text that is equal for tables with equal views of equally many images."""
        return f"n={self.n} pad={self.pad} flip={self.flip} k={self.k} seed={self.seed}"

    def at(self, index: Tensor, epoch: int) -> Tensor:
        """Return the view, 0 .. K-1, in which each image ``index`` (B,) is shown in an epoch."""
        return self._order[index, epoch % self.k].long()

    def params(self, index: Tensor, view: Tensor | int) -> tuple[Tensor, Tensor, Tensor]:
        """Return top, left (0 .. 2 pad, int64) and mirrored (bool), (B,) each, of views (B,) or of one view for all."""
        codes = self._codes[index, view].long()
        return decode_view(codes, self.pad)


def count_views(pad: int, flip: bool) -> int:
    """Count the different crops and flips of an image: (2 pad + 1)^2, twice that with flip."""
    return (2 * pad + 1) ** 2 * (1 + bool(flip))


def decode_view(codes: Tensor, pad: int) -> tuple[Tensor, Tensor, Tensor]:
    """Split view codes into top, left and mirrored; see `ViewTable.params`."""
    side = 2 * pad + 1
    corner = codes % side**2
    return corner // side, corner % side, codes >= side**2


def _ordered_draws(n: int, possible: int, k: int, seed: int) -> Tensor:
    """Draw k of 0 .. possible-1 without replacement for n rows at once, by a sparse Fisher-Yates shuffle.

    Only the swapped places of each row's deck are kept, so that 6,498 possible views of a million images fit.
    """
    generator = torch.Generator().manual_seed(seed)
    places: list[Tensor] = []
    values: list[Tensor] = []

    def look(place: Tensor) -> Tensor:
        value = place
        for at, put in zip(places, values, strict=True):  # the latest swap of a place is valid
            value = torch.where(at == place, put, value)
        return value

    draws = torch.empty(n, k, dtype=torch.int32)
    for j in range(k):
        place = torch.randint(j, possible, (n,), generator=generator, dtype=torch.int32)
        draws[:, j] = look(place)
        top = look(torch.full((n,), j, dtype=torch.int32))
        places.append(place)
        values.append(top)
    return draws
