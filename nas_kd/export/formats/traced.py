"""The graph of torch.export, which several formats begin with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def exported(network: nn.Module, example: Tensor | tuple[Any, ...]) -> Any:
    """Trace a network for any batch size; a module inside it, given as a tuple of its arguments, for theirs."""
    if isinstance(example, tuple):
        return torch.export.export(network, example)
    return torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
