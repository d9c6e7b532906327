"""Watches a training's losses for NaN and infinity without making a GPU wait at every step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class Bad(NamedTuple):
    """The first value of an epoch that was not finite.

    Args:
        step: number of the step in its epoch, from 0.
        key: name of the value.
        value: NaN or an infinity.
    """

    step: int
    key: str
    value: float


class Watch:
    """Remembers, on the device, the first step of an epoch that had a value that is not finite.

    Args:
        every: steps between two looks at what is remembered, which is when the device is waited for.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self._seen: tuple[Tensor, Tensor] | None = None  # step or -1; the values of that step
        self._keys: list[str] = []

    def start(self) -> None:
        """Begin an epoch."""
        self._seen = None

    def add(self, step: int, values: Mapping[str, Tensor]) -> Bad | None:
        """Take in the values of a step.

        Args:
            step: number of the step in its epoch, from 0.
            values: scalars by name, the same names at every step.

        Returns:
            What `look` returns at every so many steps, else None.
        """
        first = next(iter(values.values()))
        now = torch.stack([value.detach().to(first.device).float() for value in values.values()])
        if self._seen is None:
            self._keys = list(values)
            self._seen = torch.full((), -1, device=now.device), torch.zeros_like(now)
        at, held = self._seen
        fresh = (at < 0) & ~torch.isfinite(now).all()
        self._seen = torch.where(fresh, step, at), torch.where(fresh, now, held)
        return self.look() if (step + 1) % self._every == 0 else None

    def look(self) -> Bad | None:
        """Return the first value of this epoch that was not finite, or None; waits for the device."""
        if self._seen is None:
            return None
        step = int(self._seen[0])
        if step < 0:
            return None
        values = dict(zip(self._keys, self._seen[1].tolist(), strict=True))
        key = next(key for key, value in values.items() if not math.isfinite(value))
        return Bad(step, key, values[key])
