"""Settings that every training of one network has."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingConfig:
    """How one network is trained, besides how long and how fast."""

    momentum: float = 0.9
    """momentum, of optimisers that have one"""
    weight_decay: float = 5e-4
    """weight decay, on neither norms nor biases"""
    warmup_epochs: float = 1.0
    """epochs of linear warm-up"""
    optimizer: str = "sgd"
    """sgd (Nesterov momentum), or one of timm's optimisers by name, such as momentum, adamw or lamb"""
    schedule: str = "cosine"
    """cosine (to zero) or step"""
    milestones: list[float] | None = None
    """epochs after which the step schedule lowers the rate; null is 5/8, 3/4 and 7/8 of all"""
    factor: float = 0.1
    """what the step schedule multiplies the rate by"""
    ema: float = 0.0
    """decay of an average of the weights that is used in their place at the end; 0 is off"""
    mixup: float = 0.0
    """parameter of mixup's beta distribution; 0 is off. A student's mixed images need a teacher that runs live"""
    cutmix: float = 0.0
    """the same of CutMix; with both, each batch is mixed by one of them"""
