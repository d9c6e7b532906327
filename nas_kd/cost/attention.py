"""What attention multiplies besides its weights: the products of queries, keys and values."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


@torch.no_grad()
def attention_macs(network: nn.Module, x: Any) -> int:
    """Count the multiply-adds of a network's attention that no weight takes part in, which its MACs leave out.

    Two products a layer, of queries with keys and of their softmax with values: 2 L^2 heads width of L tokens.

    Args:
        network: in evaluation mode; it is run once.
        x: one image or text.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        network(x)
    counted = counter.get_flop_counts()["Global"]
    return sum(flops for op, flops in counted.items() if "attention" in str(op) or "bmm" in str(op)) // 2
