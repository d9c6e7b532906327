"""Settings that all stages which train something share; each changes the defaults that suit it."""

from __future__ import annotations

from dataclasses import replace

from typing_extensions import Self, TypedDict

from nas_kd.config.settings import Settings, default_of, settings
from nas_kd.config.types import Count, NotNegative, Positive, Share
from nas_kd.errors import SettingError


@settings("training")
class LearningConfig(Settings):
    """How long, and with which optimiser settings."""

    epochs: Count = 30
    """passes over train"""
    batch_size: Count = 64
    """images per step"""
    lr: Positive = 0.1
    """peak learning rate"""
    weight_decay: NotNegative = 5e-4
    """weight decay, except of norms and biases"""

    def fitted(self, images: int, parts: int = 1) -> Self:
        """Return settings with a batch that the training images fill: a default gives way, a setting does not.

        Args:
            images: number of training images.
            parts: into how many equal parts a batch is split, each of two images or more.
        """
        if self.batch_size != default_of(type(self), "batch_size"):
            return self
        size = min(self.batch_size, images)
        if parts > 1:
            size = max(2, size // parts) * parts
        return self if size == self.batch_size else replace(self, batch_size=size)


@settings("training", after={"weight_decay": "momentum"})
class NetworkLearningConfig(LearningConfig):
    """The same for whole networks."""

    momentum: Share = 0.9
    """Nesterov momentum"""
    warmup_epochs: NotNegative = 1.0
    """epochs of linear warm-up"""
    clip_grad: NotNegative = 0.0
    """clip each entry of the gradient to this magnitude; 0 does not clip"""
    ema: Share = 0.0
    """decay of an exponential moving average of the weights, which replaces them at the end; 0 is off"""

    def __post_init__(self) -> None:
        """Check that a warm-up ends before the training does; one epoch is cut to half of a shorter training."""
        warmup = self.warmup_epochs or 0.0  # null where it depends on other settings
        if self.epochs and warmup >= self.epochs and warmup > 1:
            expected = f"below {self.section}.epochs={self.epochs}"
            raise SettingError(f"{self.section}.warmup_epochs", warmup, expected, "shorten the warm-up")


class LearningSettings(TypedDict, total=False):
    """The settings of `LearningConfig` as keywords."""

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float


class NetworkLearningSettings(LearningSettings, total=False):
    """The settings of `NetworkLearningConfig` as keywords."""

    momentum: float
    warmup_epochs: float
    clip_grad: float
    ema: float
