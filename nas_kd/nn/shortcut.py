"""The input of a strided block's shortcut."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def subsample(x: Tensor, stride: int) -> Tensor:
    """Keep every ``stride``-th pixel of (B, C, H, W): what a 1x1 convolution of that stride sees.

    It pools over one pixel, as the gradient of a strided slice is laid out channels first, and mixed layouts make
    the ReLU before it much slower in a channels_last network. A strided 1x1 convolution is avoided: on CPUs
    without AVX-512, oneDNN 3.13 (torch 2.15) overwrites foreign memory in its backward pass for channels_last
    inputs of fewer than eight channels.
    """
    return F.avg_pool2d(x, 1, stride) if stride > 1 else x


def pooled(x: Tensor, stride: int) -> Tensor:
    """Average 2x2 pixels of (B, C, H, W) where the stride is 2; an odd last row or column averages what there is."""
    return F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False) if stride > 1 else x
