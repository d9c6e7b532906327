"""Settings of the trainings that end in students."""

from __future__ import annotations

from dataclasses import dataclass, field

from nas_kd.config.checks import manner, natural, positive, share, warmup, word
from nas_kd.config.names import check_method
from nas_kd.config.training import TrainingConfig


@dataclass(frozen=True)
class RetrainConfig(TrainingConfig):
    """Distilled training of the found student, and of those it is compared with."""

    method: str | list[tuple[str, float]] | None = None
    """distillation method, such as kd, kd_ls (logit-standardised) or dkd (`nas-kd methods` lists them), or a list
    of losses and weights such as [[ce, 0.1], [kd, 0.9]]; null is kd_ls, ce without a teacher"""
    method_settings: dict[str, bool | int | float | str] = field(default_factory=dict)
    """settings of a named method, such as {temperature: 4}; --method.temperature 4 for short"""
    epochs: int = 30
    """passes over train"""
    batch_size: int = 128
    """images a step"""
    lr: float = 0.1
    """peak learning rate"""
    clip_grad: float = 0.0
    """greatest magnitude of an entry of the gradient; 0 does not clip"""
    seeds: int = 3
    """trainings of every student, each from its own seed"""
    init: str = "scratch"
    """scratch or supernet: the weights that a student starts from"""
    random_students: int = 3
    """random students of the found one's MACs to compare with"""
    band: float = 0.05
    """how far, as a share, their MACs may lie from the found one's"""

    def __post_init__(self) -> None:
        positive("retrain", self, "epochs", "batch_size", "lr", "seeds", "band")
        natural("retrain", self, "weight_decay", "random_students", "warmup_epochs", "clip_grad")
        share("retrain", self, "momentum")
        check_method("retrain.method", self.method)
        word("retrain.init", self.init, ("scratch", "supernet"))
        warmup("retrain", self.warmup_epochs, self.epochs)
        manner("retrain", self, self.epochs)
