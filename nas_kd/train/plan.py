"""What a training goes through and for how long, and whether its images suffice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from nas_kd.errors import SettingError
from nas_kd.train.optim import Rates


class Source(Protocol):
    """The training images: a `Split`, or a sampler that draws other batches from one."""

    def __len__(self) -> int:
        """Return the number of images."""

    def steps(self, batch_size: int) -> int:
        """Return the number of batches per epoch."""

    def batches(self, batch_size: int, *, epoch: int, seed: int, rank: int, world: int) -> Iterator[Any]:
        """Iterate over an epoch; see `Split.batches`."""


def check_epochs(field: str, epochs: int, batch_size: int, split: Source, accumulate: int = 1, world: int = 1) -> None:
    """Check that there are epochs, and that batches can be split into equal parts.

    Args:
        field: section of the settings, for the error message.
        batch_size: images per step, of all processes together.
        accumulate: parts into which the images of a step are split in each process.
        world: number of processes.

    Raises:
        SettingError: a value is out of range.
    """
    if epochs < 1:
        raise SettingError(f"{field}.epochs", epochs, "an integer of at least 1")
    if not 1 <= batch_size <= len(split):
        expected = f"1 to {len(split)}, as many as there are to train on"
        raise SettingError(f"{field}.batch_size", batch_size, expected)
    if accumulate < 1:
        raise SettingError(f"{field}.accumulate", accumulate, "an integer of at least 1", "use 1")
    parts = world * accumulate
    if parts > 1 and (batch_size % parts or batch_size < 2 * parts):
        words = [f"{world} processes"] * (world > 1) + [f"{field}.accumulate={accumulate}"] * (accumulate > 1)
        near = max(2, round(batch_size / parts)) * parts
        expected = f"a multiple of {parts}, at least {2 * parts}, with {' and '.join(words)}"
        raise SettingError(f"{field}.batch_size", batch_size, expected, f"use {field}.batch_size={near}")


@dataclass(frozen=True)
class Plan:
    """Length, batch size and learning rate of a training.

    Args:
        schedule: the learning rate.
        batch_size: images per step, of all processes together.
        accumulate: parts into which the images of a step are split in each process; the gradient is their mean.
        clip: maximum magnitude of a gradient's entries (AlphaNet clips by value); 0 for no clipping.
        ema: decay of an exponential moving average of the weights, which replaces them at the end; 0 for none.
        lr: the setting of the learning rate, for messages; None is that of the section with the training's name.
    """

    schedule: Rates
    epochs: int
    batch_size: int
    accumulate: int = 1
    clip: float = 0.0
    ema: float = 0.0
    lr: str | None = None
