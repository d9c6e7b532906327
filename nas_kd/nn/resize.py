"""Resizing of images to the input size that an arch chooses."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd.nn.output import Output


def at_resolution(x: Any, resolution: int | None) -> Any:
    """Resize images, bicubic and without antialiasing.

    Args:
        x: (B, C, H, W), H = W; texts are never resized.
        resolution: output height and width in pixels; None keeps the images.

    Returns:
        (B, C, resolution, resolution), or the images themselves when they have that size.

    Source: AttentiveNAS (Wang et al. 2021, released code), which resizes up and down in this way.
    """
    if resolution is None or not isinstance(x, Tensor) or x.shape[-1] == resolution == x.shape[-2]:
        return x
    return F.interpolate(x, (resolution, resolution), mode="bicubic", align_corners=False, antialias=False)


class Resized(nn.Module):
    """A network that first resizes its images: the trained model when an arch chooses its input size."""

    def __init__(self, network: nn.Module, resolution: int) -> None:
        super().__init__()
        self.network = network
        self.resolution = resolution

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) images of any size to logits (B, classes)."""
        return self.network(at_resolution(x, self.resolution))


class ResizedStages(Resized):
    """The same of a network that returns its features."""

    def forward_stages(self, x: Tensor) -> Output:
        """Run the network on (B, C, H, W) images of any size and return its features."""
        network: Any = self.network
        return network.forward_stages(at_resolution(x, self.resolution))


def resized(network: nn.Module, resolution: int | None) -> nn.Module:
    """Wrap a network so that it accepts images of any size; None returns the network itself."""
    if resolution is None:
        return network
    return ResizedStages(network, resolution) if hasattr(network, "forward_stages") else Resized(network, resolution)
