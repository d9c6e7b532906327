"""A timm model behind the change from the images' normalisation to the one that its weights were trained with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nas_kd.teacher.build import build_model

Normalisation = tuple[Sequence[float], Sequence[float]]  # mean and std of each channel, in 0..1 units


class Renormalised(nn.Module):
    """A timm model that takes images of another normalisation.

    Padding is zero after a normalisation, so that the change cannot become part of a padded convolution's weights.

    Args:
        model: name of a timm model.
        num_classes: of its logits.
        in_chans: channels of its images.
        resolution: their height in pixels.
        given: mean and std that images are normalised by.
        expected: those that it was trained with.
        network: the model, trained; None builds it with new weights.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        model: str,
        num_classes: int,
        in_chans: int,
        resolution: int,
        given: Normalisation,
        expected: Normalisation,
        network: nn.Module | None = None,
    ) -> None:
        super().__init__()
        sizes: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_chans, "resolution": resolution}
        self.network = build_model(model, **sizes) if network is None else network
        pairs = {"given": [list(one) for one in given], "expected": [list(one) for one in expected]}
        # rebuilds it from a student folder
        self.factory = (f"{__name__}:{type(self).__name__}", {"model": model, **sizes, **pairs})
        (mean, std), (own_mean, own_std) = (
            torch.tensor([list(one) for one in pair], dtype=torch.float64) for pair in (given, expected)
        )
        # (v - own mean) / own std, where v = x * std + mean
        self.register_buffer("scale", (std / own_std).float().view(1, -1, 1, 1), persistent=False)
        self.register_buffer("shift", ((mean - own_mean) / own_std).float().view(1, -1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_chans, H, W) to logits (B, num_classes)."""
        logits: Tensor = self.network(torch.addcmul(self.shift, x, self.scale))
        return logits
