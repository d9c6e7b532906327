"""Images at the input size that an arch chooses."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def at_resolution(x: Tensor, resolution: int | None) -> Tensor:
    """Resize images, bicubic and without antialiasing.

    Args:
        x: (B, C, H, W), H = W.
        resolution: wanted height and width in pixels; None keeps the images.

    Returns:
        (B, C, resolution, resolution), or the images themselves when nothing is to do.

    Source: as AttentiveNAS resizes (Wang et al. 2021, released code), up as well as down.
    """
    if resolution is None or x.shape[-1] == resolution == x.shape[-2]:
        return x
    return F.interpolate(x, (resolution, resolution), mode="bicubic", align_corners=False, antialias=False)
