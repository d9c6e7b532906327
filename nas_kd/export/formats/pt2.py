"""torch.export: a graph of torch's own operators with the weights, for any batch size."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from nas_kd.export.deployed import Deployed
from nas_kd.export.formats.base import Format, Read
from nas_kd.export.formats.pt2_int8 import INT8
from nas_kd.export.formats.traced import exported


def write(network: Deployed, example: Tensor, path: Path) -> None:
    """Write a .pt2 file."""
    torch.export.save(exported(network, example), path)


def read(path: Path) -> Read:
    """Read a file back as a function of images."""
    return torch.export.load(path).module()


FORMAT = Format("pt2", ".pt2", "torch.export", write, read, exported, int8=INT8)
