"""Activations by the name a space writes."""

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
    """Drop whole residual branches of random images (stochastic depth) and scale the rest up.

    Args:
        x: (B, ...) output of a residual branch.
        rate: share of images that lose the branch, 0 to 1 (excluded).

    Source: Huang et al. 2016, Deep Networks with Stochastic Depth.
    """
    if rate == 0.0:
        return x
    keep = torch.rand((x.shape[0],) + (1,) * (x.ndim - 1), device=x.device) >= rate
    return x * keep.to(x.dtype) / (1.0 - rate)
