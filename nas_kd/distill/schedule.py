"""Weights that change with the progress of training, 0..1; a plain number is a constant weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nas_kd.errors import SettingError

Schedule = Callable[[float], float]


@dataclass(frozen=True)
class Warmup:
    """A weight that grows linearly from 0 and then stays constant.

    Args:
        weight: final weight.
        share: fraction of the training, 0 < share <= 1, after which it is reached.
    """

    weight: float
    share: float

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise SettingError("share", self.share, "0 < share <= 1")

    def __call__(self, progress: float) -> float:
        return self.weight * min(1.0, progress / self.share)


@dataclass(frozen=True)
class Decay:
    """A weight that falls linearly to its final value and then stays constant.

    Args:
        weight: initial weight.
        share: fraction of the training, 0 < share <= 1, after which ``final`` is reached.
    """

    weight: float
    final: float = 0.0
    share: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise SettingError("share", self.share, "0 < share <= 1")

    def __call__(self, progress: float) -> float:
        return self.weight + (self.final - self.weight) * min(1.0, progress / self.share)
