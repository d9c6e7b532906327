"""What the choices of a derived space cost, counted without computing anything."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nas_kd.space.arch import Cost


def count(module: nn.Module, shape: tuple[int, ...]) -> Cost:
    """Count a module.

    Args:
        module: not run on real numbers.
        shape: of its input without the batch.

    Returns:
        Multiply-adds of one input, products of attention with them, and parameters.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        deepcopy(module).to("meta").eval()(torch.empty(1, *shape, device="meta"))
    return Cost(counter.get_total_flops() // 2, sum(p.numel() for p in module.parameters()))
