"""Detection of NaN and infinite losses without synchronising with a GPU at every step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class NonFinite(NamedTuple):
    """The first value of an epoch that was not finite.

    Args:
        step: index of the step in its epoch.
        key: name of the value.
        value: NaN or infinite.
    """

    step: int
    key: str
    value: float


class Watch:
    """Keeps the first step of an epoch with a non-finite value on the device.

    Args:
        every: steps between checks, which synchronise with the device.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self._seen: tuple[Tensor, Tensor] | None = None  # step or -1; the values of that step
        self._keys: list[str] = []

    def start(self) -> None:
        """Start an epoch."""
        self._seen = None

    def add(self, step: int, values: Mapping[str, Tensor]) -> NonFinite | None:
        """Add the values of a step, and check every ``every`` steps.

        Args:
            step: index of the step in its epoch.
            values: scalars by name, the same names at every step.
        """
        first = next(iter(values.values()))
        now = torch.stack([value.detach().to(first.device).float() for value in values.values()])
        if self._seen is None:
            self._keys = list(values)
            self._seen = torch.full((), -1, device=now.device), torch.zeros_like(now)
        at, held = self._seen
        fresh = (at < 0) & ~torch.isfinite(now).all()
        self._seen = torch.where(fresh, step, at), torch.where(fresh, now, held)
        return self.check() if (step + 1) % self._every == 0 else None

    def check(self) -> NonFinite | None:
        """Return the first non-finite value of this epoch, or None; synchronises with the device."""
        if self._seen is None:
            return None
        step = int(self._seen[0])
        if step < 0:
            return None
        values = dict(zip(self._keys, self._seen[1].tolist(), strict=True))
        key = next(key for key, value in values.items() if not math.isfinite(value))
        return NonFinite(step, key, values[key])
