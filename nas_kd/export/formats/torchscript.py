"""TorchScript by trace, for programs in C++ that load nothing else."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nas_kd.export.deployed import Deployed
from nas_kd.export.formats.base import Format, Read


def traced(network: nn.Module, example: Tensor | tuple[Any, ...]) -> Any:
    """Trace a network; Python's ifs are taken as they are for the example."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TorchScript is no longer developed, and ifs over shapes
        return torch.jit.trace(network, example, check_trace=False)


def write(network: Deployed, example: Tensor, path: Path) -> None:
    """Write a TorchScript file."""
    made = traced(network, example)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(made, path)


def read(path: Path) -> Read:
    """Read a file back as a function of images."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.load(path)


FORMAT = Format("torchscript", ".pt", "TorchScript", write, read, traced)
