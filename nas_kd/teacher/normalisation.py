"""The normalisation that a network expects of images, and the step to it from that of the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nas_kd.errors import SettingError

Normalisation = tuple[Sequence[float], Sequence[float]]  # mean and std of each channel, in 0..1 units


def per_channel(field: str, values: Any, in_chans: int) -> tuple[float, ...] | None:
    """Return numbers of a setting, one a channel.

    Args:
        field: mean or std.
        values: the numbers; None where there are none.
        in_chans: channels of the network.

    Raises:
        SettingError: there are more or fewer.
    """
    if values is None:
        return None
    if len(values) != in_chans:
        raise SettingError(f"teacher.{field}", tuple(values), f"{in_chans} numbers, one per channel")
    return tuple(float(value) for value in values)


def renormalisation(theirs: Normalisation, own: Normalisation, device: torch.device) -> tuple[Tensor, Tensor] | None:
    """Return what images are multiplied by, and what is added, for another normalisation; None where it is the same.

    Args:
        theirs: the images'.
        own: the network's.
        device: of the images.

    Returns:
        Both (1, C, 1, 1) float32.
    """
    if theirs == own:
        return None
    # (v - own mean) / own std, where v = x * their std + their mean
    mean, std, own_mean, own_std = (
        torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1) for values in (*theirs, *own)
    )
    return (std / own_std).float().to(device), ((mean - own_mean) / own_std).float().to(device)
