"""A network that is no student of a space, as users have their own."""

from __future__ import annotations

from torch import Tensor, nn


class Plain(nn.Module):
    """Two convolutions and a classifier."""

    def __init__(self, width: int = 6, num_classes: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, width, 3, 2, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, 2, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 1, H, W) to logits (B, classes)."""
        return self.fc(self.body(x).mean((2, 3)))
