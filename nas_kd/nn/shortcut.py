"""The input of a strided block's shortcut."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def subsample(x: Tensor, stride: int) -> Tensor:
    """Keep every ``stride``-th pixel of (B, C, H, W): the pixels that a 1x1 convolution of that stride reads.

    Pooling over one pixel is used because the gradient of a strided slice is laid out channels first, and mixed
    layouts make the ReLU before it much slower in a channels_last network. A strided 1x1 convolution is avoided: on
    CPUs without AVX-512, oneDNN 3.13 (torch 2.15) writes out of bounds in its backward pass for channels_last
    inputs of fewer than eight channels.
    """
    return F.avg_pool2d(x, 1, stride) if stride > 1 else x


def pooled(x: Tensor, stride: int) -> Tensor:
    """Average 2x2 pixels of (B, C, H, W) where the stride is 2; partial windows average the pixels they hold."""
    return F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False) if stride > 1 else x
