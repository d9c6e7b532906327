"""Intermediate exits of a student, taught by its own last layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd import losses
from nas_kd.distill.pair import Pair
from nas_kd.errors import SettingError
from nas_kd.losses._common import one_of, wide
from nas_kd.nn.output import Output


class Exits(nn.Module):
    """Be your own teacher: a bottleneck and a classifier after every stage but the last, for training only.

    Args:
        pair: the student, with two stages or more.
        alpha: weight of the deepest classifier's logits in the loss of an exit, 0..1.
        hint: weight of the features' squared distance from the deepest stage's; 128 times the authors' 1e-6, which is
            for the sum over a batch of 128.
        temperature: of the logits.

    Raises:
        SettingError: fewer than two stages of maps, or alpha out of range.

    Source: Zhang et al., arXiv 1905.08094, eq. 1 to 4.
    """

    def __init__(
        self, pair: Pair, alpha: float = 0.1, hint: float = 1.28e-4, temperature: float = 3.0, variant: str = "paper"
    ) -> None:
        super().__init__()
        one_of("byot.variant", variant, ("paper", "code"))
        shapes = pair.student.stages
        if len(shapes) < 2 or any(len(shape) != 3 for shape in shapes):
            raise SettingError("method", "byot", f"two stages of maps or more; the student has {shapes}")
        if not 0 <= alpha <= 1:
            raise SettingError("byot.alpha", alpha, "0 to 1")
        self.alpha = alpha
        self.hint = hint
        self.temperature = temperature
        self.variant = variant
        last = shapes[-1]
        self.bottlenecks = nn.ModuleList(_bottleneck(shape, last) for shape in shapes[:-1])
        self.classifiers = nn.ModuleList(nn.Linear(last[0], pair.student.logits) for _ in shapes[:-1])

    def logits(self, student: Output) -> list[Tensor]:
        """Return the (B, C) logits of every exit."""
        features = [b(x) for b, x in zip(self.bottlenecks, student.stages, strict=False)]
        return [c(f.mean((2, 3))) for c, f in zip(self.classifiers, features, strict=True)]

    def forward(self, student: Output, y: Tensor) -> Tensor:
        """Return the sum of the exits' losses, without a gradient for the deepest classifier."""
        target = student.logits.detach()
        deepest = student.stages[-1].detach()
        parts = []
        for bottleneck, classifier, x in zip(self.bottlenecks, self.classifiers, student.stages, strict=False):
            feature = bottleneck(x)
            logits = classifier(feature.mean((2, 3)))
            loss = (1 - self.alpha) * F.cross_entropy(wide(logits), y)
            loss = loss + self.alpha * losses.kd(logits, target, self.temperature)
            parts.append(loss + self.hint * losses.self_hint(feature, deepest, self.variant))
        return torch.stack(parts).sum()


def _bottleneck(shape: tuple[int, ...], last: tuple[int, ...]) -> nn.Module:
    """Return convolutions of stride 2 down to the last stage's size, with its channels."""
    layers: list[nn.Module] = []
    inputs = shape[0]
    size = shape[1]
    while size > last[1]:
        layers += [nn.Conv2d(inputs, last[0], 3, 2, 1, bias=False), nn.BatchNorm2d(last[0]), nn.ReLU()]
        inputs = last[0]
        size = -(-size // 2)
    layers += [nn.AdaptiveAvgPool2d(last[1:])] if size != last[1] else []
    return nn.Sequential(*layers, nn.Conv2d(inputs, last[0], 1, bias=False), nn.BatchNorm2d(last[0]), nn.ReLU())
