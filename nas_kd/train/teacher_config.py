"""Settings of the teacher and of its training."""

from __future__ import annotations

from collections.abc import Sequence

from nas_kd.config.settings import Changed, settings
from nas_kd.config.types import Finite, Natural, Positive, Share
from nas_kd.errors import SettingError
from nas_kd.train.config import TrainingConfig, TrainingSettings

EPOCHS = 20  # default of train_teacher

TRAINED = "train or fine-tune the teacher on train for this many epochs; 0 does not train it (train_teacher: 20 epochs)"


@settings("teacher", {"epochs": Changed(0, TRAINED, Natural), "batch_size": 64, "lr": 0.05})
class TeacherConfig(TrainingConfig):
    """The teacher, a fixed network."""

    model: str | None = "cifar_resnet20"
    """a timm name, cifar_resnet20/32/44/56/110, package.module:factory, or a student folder; null for no
    teacher: the search then uses the accuracy of subnets, and students learn from labels"""
    checkpoint: str | None = None
    """weights of the model: .safetensors, or a torch file of weights only"""
    pretrained: bool = False
    """load timm's pretrained weights (downloads them)"""
    stages: Sequence[str] | None = None
    """names of the teacher's layers that the student's stages learn from; null chooses them"""
    mean: Sequence[Finite] | None = None
    """channel means, in 0..1 units, of the teacher's own input normalisation; null uses the model's"""
    std: Sequence[Positive] | None = None
    """channel standard deviations, in 0..1 units"""
    cache: str | None = None
    """folder for the teacher's logits, shared by several runs; null stores them in the run"""
    smoothing: Share = 0.0
    """label smoothing"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_normalisation()
        if self.model is None and (self.epochs or self.checkpoint or self.pretrained):
            given = ", ".join(name for name in ("epochs", "checkpoint", "pretrained") if getattr(self, name))
            expected = f"a network, since teacher.{given} is set"
            raise SettingError("teacher.model", None, expected, "set teacher.model, or omit the other setting")
        if self.epochs and (self.mean is not None or self.std is not None):
            expected = "null for a teacher that is trained here, with the normalisation of the data"
            raise SettingError("teacher.mean", self.mean, expected, "omit teacher.mean and teacher.std")

    def _check_normalisation(self) -> None:
        for name, given, other in (("mean", self.mean, self.std), ("std", self.std, self.mean)):
            if given is not None and (other is None or len(other) != len(given)):
                expected = "one number per channel in teacher.mean and teacher.std, or null in both"
                raise SettingError(f"teacher.{name}", given, expected, "set both or neither")

    def need_weights(self) -> None:
        """Reject a teacher that would have random weights.

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
                "set teacher.checkpoint, teacher.pretrained=true, or teacher.epochs to train it",
            )


class TeacherSettings(TrainingSettings, total=False):
    """The settings of `TeacherConfig` as keywords, without the model, which may be an object."""

    checkpoint: str | None
    pretrained: bool
    stages: Sequence[str] | None
    mean: Sequence[float] | None
    std: Sequence[float] | None
    cache: str | None
    smoothing: float
