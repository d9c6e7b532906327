"""Learned transformation of large depthwise kernels to smaller ones (OFA)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd.nn.elastic import centre


class KernelTransform(nn.Module):
    """Matrices that turn the centre of a kernel into the next smaller kernel, one per pair of sizes.

    In a layer: ``weight = prefix(self.weight, channels)``, then ``weight = self.transform(weight, kernel)``
    instead of ``centre(weight, kernel)``. All channels share the matrices (7 to 5: 25 x 25, 5 to 3:
    9 x 9), and a small kernel passes through every matrix above it. They start as the identity, so that
    the result is at first exactly the centre crop.

    Args:
        kernels: odd kernel sizes, ascending.

    Source: OFA (Cai et al. 2020), section 3.3, elastic kernel size.
    """

    def __init__(self, kernels: Sequence[int]) -> None:
        super().__init__()
        self.kernels = tuple(kernels)
        pairs = {f"{large}to{small}": nn.Parameter(torch.eye(small**2)) for small, large in pairwise(self.kernels)}
        self.matrices = nn.ParameterDict(pairs)

    def forward(self, weight: Tensor, kernel: int) -> Tensor:
        """Map (C, 1, K, K), K the largest size, to (C, 1, kernel, kernel)."""
        for small, large in reversed(list(pairwise(self.kernels))):
            if large > kernel:
                crop = centre(weight, small)
                weight = F.linear(crop.flatten(1), self.matrices[f"{large}to{small}"]).view_as(crop)
        return weight
