"""Activations by the names that spaces use."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from nas_kd.errors import SettingError, nearest

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "silu": F.silu,
    "hardswish": F.hardswish,
}


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """Return an activation.

    Raises:
        SettingError: the name is unknown.
    """
    if name not in ACTIVATIONS:
        raise SettingError("act", name, "one of " + ", ".join(ACTIVATIONS), nearest(name, ACTIVATIONS))
    return ACTIVATIONS[name]


def drop_path(x: Tensor, rate: float) -> Tensor:
    """Drop the residual branch of random images (stochastic depth) and scale up the rest.

    Args:
        x: (B, ...) output of a residual branch.
        rate: fraction of images whose branch is dropped, 0 <= rate < 1.

    Source: Huang et al. 2016, Deep Networks with Stochastic Depth.
    """
    if rate == 0.0:
        return x
    keep = torch.rand((x.shape[0],) + (1,) * (x.ndim - 1), device=x.device) >= rate
    return x * keep.to(x.dtype) / (1.0 - rate)
