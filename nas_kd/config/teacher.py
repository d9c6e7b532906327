"""Settings of the teacher."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nas_kd.config.checks import manner, natural, positive, share, warmup
from nas_kd.config.training import TrainingConfig
from nas_kd.errors import SettingError


@dataclass(frozen=True)
class TeacherConfig(TrainingConfig):
    """The fixed network that teaches."""

    model: str | None = "cifar_resnet20"
    """a timm name, cifar_resnet20/32/44/56/110, package.module:factory, or a student folder; null for no
    teacher: the search then follows the supernet's accuracy, and students learn from labels"""
    checkpoint: str | None = None
    """weights of the model: .safetensors, or a torch file of weights only"""
    pretrained: bool = False
    """load timm's pretrained weights (downloads them)"""
    stages: list[str] | None = None
    """names of the teacher's layers that the student's stages learn from; null chooses them"""
    mean: list[float] | None = None
    """channel means, in 0..1 units, of the teacher's own input normalisation; null takes the model's"""
    std: list[float] | None = None
    """channel standard deviations, likewise"""
    cache: str | None = None
    """folder of the teacher's stored answers that several runs share; null keeps them in the run"""
    epochs: int = 0
    """train or fine-tune the teacher on train for this many epochs; 0 uses it as it is"""
    batch_size: int = 64
    """images a step"""
    lr: float = 0.05
    """peak learning rate"""
    smoothing: float = 0.0
    """label smoothing"""

    def __post_init__(self) -> None:
        natural("teacher", self, "epochs", "weight_decay", "warmup_epochs")
        positive("teacher", self, "lr", "batch_size")
        share("teacher", self, "momentum", "smoothing")
        self._check_normalisation()
        if self.model is None and (self.epochs or self.checkpoint or self.pretrained):
            given = ", ".join(name for name in ("epochs", "checkpoint", "pretrained") if getattr(self, name))
            legal = f"a network, when teacher.{given} is given"
            raise SettingError("teacher.model", None, legal, "name a model, or leave that out")
        if self.epochs:
            warmup("teacher", self.warmup_epochs, self.epochs)
            manner("teacher", self, self.epochs)
            if self.mean is not None or self.std is not None:
                legal = "null for a teacher that is trained here: it sees the data's own normalisation"
                raise SettingError("teacher.mean", self.mean, legal, "leave out teacher.mean and teacher.std")

    def _check_normalisation(self) -> None:
        for name, given, other in (("mean", self.mean, self.std), ("std", self.std, self.mean)):
            if given is not None and (other is None or len(other) != len(given)):
                legal = "one number a channel in teacher.mean and teacher.std, or null in both"
                raise SettingError(f"teacher.{name}", given, legal, "give both, or leave both out")
        for name, given, low in (("mean", self.mean, -math.inf), ("std", self.std, 0.0)):
            if not all(low < value < math.inf for value in given or ()):
                legal = "finite numbers" + (" above 0" if name == "std" else "")
                raise SettingError(f"teacher.{name}", given, legal, "leave it out: the model's own are taken")

    def need_weights(self) -> None:
        """Refuse a teacher that would be left with random weights.

        Raises:
            SettingError: a plain model name without checkpoint, pretrained weights or epochs.
        """
        if self.model is None:
            return
        own_weights = ":" in self.model or "/" in self.model or self.model.startswith(".")
        if not (own_weights or self.checkpoint or self.pretrained or self.epochs):
            raise SettingError(
                "teacher.checkpoint",
                None,
                f"weights for teacher.model={self.model}",
                "give teacher.checkpoint, teacher.pretrained=true, or teacher.epochs to train it",
            )
