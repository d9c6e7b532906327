"""torch.export: a graph of torch's own operators with the weights, for any batch size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nas_kd.export.deployed import Deployed
from nas_kd.export.formats.base import Format, Read


def exported(network: nn.Module, example: Tensor | tuple[Any, ...]) -> Any:
    """Trace a network for any batch size; a module inside it, given as a tuple of its arguments, for theirs."""
    if isinstance(example, tuple):
        return torch.export.export(network, example)
    return torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))


def write(network: Deployed, example: Tensor, path: Path) -> None:
    """Write a .pt2 file."""
    torch.export.save(exported(network, example), path)


def read(path: Path) -> Read:
    """Read a file back as a function of images."""
    return torch.export.load(path).module()


FORMAT = Format("pt2", ".pt2", "torch.export", write, read, exported)
