"""Settings of the training of a supernet."""

from __future__ import annotations

from typing import Literal

from nas_kd.config.settings import Changed, settings
from nas_kd.config.types import ClosedShare, Count, Finite, Natural, NotNegative, Share
from nas_kd.errors import SettingError
from nas_kd.train.learning_config import NetworkLearningConfig, NetworkLearningSettings

Rule = Literal["sandwich", "bestup", "worstup", "shrinking", "uniform", "fair", "cream"]
Order = Literal["smallest_second", "smallest_last"]
Divergence = Literal["alpha", "kl", "reverse_kl", "js"]


@settings(
    "supernet",
    {
        "epochs": Changed(30, "passes over train; 0 uses supernet.checkpoint as it is", Natural),
        "batch_size": Changed(64, "images per step, of all processes together"),
        "lr": Changed(0.1, "peak learning rate; later phases of shrinking use the published fraction of it"),
        "clip_grad": 1.0,
    },
    {"epochs": "rule", "ema": "drop_path", "clip_grad": "ema"},
)
class SupernetConfig(NetworkLearningConfig):
    """Training of the supernet, by default with the sandwich rule and in-place distillation."""

    checkpoint: str | None = None
    """weights to begin with or to use as they are: a file, a student folder, or a published supernet (OFA, AlphaNet
    ...); null draws new ones"""
    rule: Rule = "sandwich"
    """sandwich; bestup or worstup (trains the best or worst of some random subnets of equal MACs); shrinking (OFA's
    phases); uniform or fair (single paths); cream (taught by the best on a board of paths)"""
    schedule: Literal["cosine", "exponential"] = "cosine"
    """cosine or exponential, for each phase"""
    final_lr: Share = 0.0
    """final learning rate, as a fraction of the peak"""
    smoothing: Share = 0.1
    """label smoothing"""
    random_subnets: Natural | None = None
    """random subnets per step; null is the rule's: 2 for sandwich, bestup and worstup, 1 for uniform and cream, one per
    choice of a layer (at most 4) for fair, 1, 2 and 4 by phase for shrinking"""
    order: Order = "smallest_second"
    """place of the smallest: smallest_second (US-Nets) or smallest_last (AlphaNet)"""
    candidates: Count = 3
    """number of archs from which bestup and worstup choose each random subnet"""
    chooser: Literal["loss", "predictor"] = "loss"
    """what bestup and worstup choose by: loss, or predictor (of 128 measured subnets)"""
    kd_ratio: NotNegative = 1.0
    """shrinking and cream: weight of the soft targets beside the label loss"""
    board: Count = 10
    """cream: paths on the board"""
    matching: Literal["agreement", "meta"] = "agreement"
    """cream: who chooses what teaches: agreement or meta (a network)"""
    full_teacher: Literal["frozen", "inplace"] = "frozen"
    """shrinking: frozen (the largest after the first phase) or inplace (of every step)"""
    kernel_transform: bool = False
    """learn matrices that turn large depthwise kernels into small ones (OFA), instead of cropping"""
    divergence: Divergence | None = None
    """loss of subnets on soft targets: alpha (alpha-divergence), kl, reverse_kl or js; null is alpha, and kl
    for shrinking and cream"""
    alpha: Finite | None = None
    """a fixed order of the alpha-divergence; null is AlphaNet's adaptive pair of -1 and 1"""
    choose: Literal["clipped", "unclipped"] = "clipped"
    """clipped (as in AlphaNet) or unclipped: the values by which the adaptive pair is compared"""
    reduction: Literal["sum", "mean"] = "sum"
    """sum or mean of the subnets' losses"""
    teacher_weight: ClosedShare = 0.0
    """0..1: weight of the external teacher, which replaces the labels (in a sandwich, for the largest)"""
    dropout: Share = 0.0
    """dropout before the classifier, for subnets that learn from labels (in a sandwich, the largest)"""
    drop_path: Share = 0.0
    """stochastic depth, for the same subnets"""
    accumulate: Count = 1
    """parts into which a process splits the images of a step, to save memory"""
    compile: bool = False
    """compile the largest and the smallest; gradients agree up to rounding"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs == 0 and self.checkpoint is None:
            expected = "an integer of at least 1 without supernet.checkpoint"
            raise SettingError("supernet.epochs", 0, expected, "train it, or give the weights in supernet.checkpoint")
        if self.schedule == "exponential" and self.final_lr == 0:
            expected = "above 0 with supernet.schedule=exponential"
            raise SettingError("supernet.final_lr", self.final_lr, expected, "use 0.05, as in BigNAS")
        if self.rule in ("uniform", "fair", "shrinking", "cream") and self.random_subnets == 0:
            expected = f"at least 1 with supernet.rule={self.rule}"
            raise SettingError("supernet.random_subnets", 0, expected, "omit it")
        if self.rule == "shrinking" and self.ema > 0:
            expected = "0 with supernet.rule=shrinking, which sorts channels between phases"
            raise SettingError("supernet.ema", self.ema, expected, "omit it")
        if self.chooser == "predictor" and self.rule not in ("bestup", "worstup"):
            expected = f"loss with supernet.rule={self.rule}, which chooses nothing"
            raise SettingError("supernet.chooser", self.chooser, expected, "use supernet.rule=bestup")
        if self.matching == "meta" and self.rule != "cream":
            expected = f"agreement with supernet.rule={self.rule}, which has no board"
            raise SettingError("supernet.matching", self.matching, expected, "use supernet.rule=cream")
        if self.rule == "cream" and self.teacher_weight > 0:
            expected = "0 with supernet.rule=cream, whose teachers are paths of its own"
            raise SettingError("supernet.teacher_weight", self.teacher_weight, expected, "omit it")
        if self.alpha is not None and self.divergence not in (None, "alpha"):
            expected = f"null with supernet.divergence={self.divergence}"
            raise SettingError("supernet.alpha", self.alpha, expected, "use supernet.divergence=alpha")

    @property
    def soft_loss(self) -> Divergence:
        """The loss of subnets on soft targets."""
        return self.divergence or ("kl" if self.rule in ("shrinking", "cream") else "alpha")


class SupernetSettings(NetworkLearningSettings, total=False):
    """The settings of `SupernetConfig` as keywords."""

    checkpoint: str | None
    rule: Rule
    schedule: Literal["cosine", "exponential"]
    final_lr: float
    smoothing: float
    random_subnets: int | None
    order: Order
    candidates: int
    chooser: Literal["loss", "predictor"]
    kd_ratio: float
    board: int
    matching: Literal["agreement", "meta"]
    full_teacher: Literal["frozen", "inplace"]
    kernel_transform: bool
    divergence: Divergence | None
    alpha: float | None
    choose: Literal["clipped", "unclipped"]
    reduction: Literal["sum", "mean"]
    teacher_weight: float
    dropout: float
    drop_path: float
    accumulate: int
    compile: bool
