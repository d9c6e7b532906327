"""A student as it is handed to a runtime: on the CPU, with normalisation before and probabilities after by option."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from nas_kd.errors import SettingError


class Deployed(nn.Module):
    """A copy of a student in evaluation mode, in fp32 on the CPU.

    Args:
        student: any network from images (B, C, H, W) to logits.
        info: ``student.info``.
        normalise: take images in 0..1 and normalise them by ``info["mean"]`` and ``info["std"]``.
        softmax: return probabilities: softmax of classes, sigmoids of several labels.

    Raises:
        SettingError: ``info`` lacks what an option needs.
    """

    mean: Tensor  # (1, C, 1, 1), like std; only where images are normalised inside
    std: Tensor

    def __init__(
        self, student: nn.Module, info: Mapping[str, Any], *, normalise: bool = False, softmax: bool = False
    ) -> None:
        super().__init__()
        self.student = deepcopy(student).cpu().float()
        self.info = dict(info)
        self.normalise = normalise
        self.activation: nn.Module = nn.Identity()
        if normalise:
            if not info.get("mean") or not info.get("std"):
                expected = "a student whose folder says mean and std, to be normalised inside"
                raise SettingError("normalise", True, expected, "leave normalise out, and normalise images yourself")
            self.register_buffer("mean", torch.tensor(info["mean"]).view(1, -1, 1, 1))
            self.register_buffer("std", torch.tensor(info["std"]).view(1, -1, 1, 1))
        if softmax:
            if info.get("labels") == "regression":
                raise SettingError("softmax", True, "false for a student whose outputs are numbers", "leave it out")
            self.activation = nn.Sigmoid() if info.get("labels") == "multilabel" else nn.Softmax(dim=1)
        self.eval()

    @property
    def numbers(self) -> bool:
        """Whether outputs are numbers, not answers."""
        return self.info.get("labels") == "regression"

    def image_shape(self) -> tuple[int, int, int]:
        """Return channels, height and width of an image."""
        channels, size = self.info.get("in_chans"), self.info.get("resolution")
        if channels is None or size is None:
            expected = "a student whose info says in_chans and resolution"
            raise SettingError("student", {"in_chans": channels, "resolution": size}, expected, "save it with them")
        return int(channels), int(size), int(size)

    def same_answers(self, a: Tensor, b: Tensor) -> Tensor | None:
        """Compare outputs (N, C): which answers are equal, (N,) for classes and (N, C) for labels; None for numbers."""
        if self.numbers:
            return None
        if self.info.get("labels") == "multilabel":
            middle = 0.0 if isinstance(self.activation, nn.Identity) else 0.5
            return (a > middle) == (b > middle)
        return a.argmax(1) == b.argmax(1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to logits or probabilities (B, classes)."""
        if self.normalise:
            x = (x - self.mean) / self.std
        return self.activation(self.student(x))
