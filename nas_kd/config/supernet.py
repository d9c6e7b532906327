"""Settings of the supernet's training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nas_kd.config.checks import natural, number, positive, share, warmup, word
from nas_kd.errors import SettingError

RULES = ("sandwich", "bestup", "worstup", "shrinking", "uniform", "fair")
DIVERGENCES = ("alpha", "kl", "reverse_kl", "js")


@dataclass(frozen=True)
class SupernetConfig:
    """Training of the supernet, by default by the sandwich rule with in-place distillation."""

    rule: str = "sandwich"
    """sandwich; bestup or worstup (of some random subnets of equal MACs the best or worst is trained); shrinking
    (OFA: the largest first, then elastic kernels, depths and widths); uniform or fair (single paths)"""
    epochs: int = 30
    """passes over train"""
    batch_size: int = 64
    """images a step"""
    lr: float = 0.1
    """peak learning rate; later phases of shrinking have the published share of it"""
    momentum: float = 0.9
    """Nesterov momentum"""
    weight_decay: float = 5e-4
    """weight decay, on neither norms nor biases"""
    warmup_epochs: float = 1.0
    """epochs of linear warm-up"""
    schedule: str = "cosine"
    """cosine or exponential"""
    final_lr: float = 0.0
    """learning rate at the end, as a share of the peak"""
    smoothing: float = 0.1
    """label smoothing"""
    random_subnets: int | None = None
    """random subnets a step; null is the rule's own: 2 besides the largest and the smallest for sandwich, bestup
    and worstup, 1 for uniform, one a choice of a layer (at most 4) for fair, 1, 2 and 4 by phase for shrinking"""
    order: str = "smallest_second"
    """smallest_second (as US-Nets) or smallest_last (as AlphaNet): where the smallest stands in a sandwich"""
    candidates: int = 3
    """archs that bestup and worstup choose each random subnet from"""
    kd_ratio: float = 1.0
    """shrinking: weight of the full network's soft targets beside the labels"""
    full_teacher: str = "frozen"
    """shrinking: frozen (the largest as it is after the first phase) or inplace (the largest of every step)"""
    kernel_transform: bool = False
    """learn matrices that turn large depthwise kernels into small ones, as OFA does, in the place of cropping"""
    divergence: str | None = None
    """alpha (alpha-divergence), kl, reverse_kl or js: how subnets learn from soft targets; null is alpha, and kl
    for shrinking"""
    alpha: float | None = None
    """a fixed order of the alpha-divergence; null is AlphaNet's adaptive pair of -1 and 1"""
    choose: str = "clipped"
    """clipped (as AlphaNet) or unclipped: which of the two alpha values are compared"""
    reduction: str = "sum"
    """sum or mean of the subnets' losses"""
    teacher_weight: float = 0.0
    """0..1: how far the external teacher takes the place of the labels (in a sandwich, for the largest)"""
    dropout: float = 0.0
    """dropout before the classifier, for subnets that learn from labels (in a sandwich, the largest)"""
    drop_path: float = 0.0
    """stochastic depth, for the same subnets"""
    ema: float = 0.0
    """decay of an average of the weights that is used in their place at the end; 0 is off"""
    clip_grad: float = 1.0
    """greatest magnitude of an entry of the gradient; 0 does not clip"""
    accumulate: int = 1
    """parts that a process's images of a step are cut into, to need less memory"""
    compile: bool = False
    """run the largest and the smallest through torch.compile"""

    def __post_init__(self) -> None:
        check_supernet(self)
        warmup("supernet", self.warmup_epochs, self.epochs)


def check_supernet(settings: Any) -> None:
    """Check the training of a supernet, but for how long its warm-up is.

    Args:
        settings: an object with the fields of ``SupernetConfig``.

    Raises:
        SettingError: naming the first setting that is not usable.
    """
    positive("supernet", settings, "epochs", "batch_size", "lr", "candidates", "accumulate")
    natural("supernet", settings, "weight_decay", "random_subnets", "warmup_epochs", "clip_grad", "kd_ratio")
    share("supernet", settings, "momentum", "smoothing", "dropout", "drop_path", "ema", "final_lr")
    number("supernet", settings, "0 to 1", lambda value: 0 <= value <= 1, "teacher_weight")
    number("supernet", settings, "a finite number", lambda value: True, "alpha")
    word("supernet.rule", settings.rule, RULES)
    word("supernet.order", settings.order, ("smallest_second", "smallest_last"))
    word("supernet.full_teacher", settings.full_teacher, ("frozen", "inplace"))
    word("supernet.schedule", settings.schedule, ("cosine", "exponential"))
    if settings.divergence is not None:
        word("supernet.divergence", settings.divergence, DIVERGENCES)
    word("supernet.choose", settings.choose, ("clipped", "unclipped"))
    word("supernet.reduction", settings.reduction, ("sum", "mean"))
    if settings.schedule == "exponential" and settings.final_lr == 0:
        legal = "above 0 when supernet.schedule=exponential"
        raise SettingError("supernet.final_lr", settings.final_lr, legal, "use 0.05, as BigNAS does")
    if settings.rule in ("uniform", "fair", "shrinking") and settings.random_subnets == 0:
        legal = f"at least 1 with supernet.rule={settings.rule}"
        raise SettingError("supernet.random_subnets", 0, legal, "leave it out")
    if settings.rule == "shrinking" and settings.ema > 0:
        legal = "0 with supernet.rule=shrinking, which moves channels and starts anew in every phase"
        raise SettingError("supernet.ema", settings.ema, legal, "leave it out")
    if settings.alpha is not None and settings.divergence not in (None, "alpha"):
        legal = f"null with supernet.divergence={settings.divergence}"
        raise SettingError("supernet.alpha", settings.alpha, legal, "use supernet.divergence=alpha")
