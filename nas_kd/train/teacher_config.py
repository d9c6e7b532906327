"""Settings of the teacher: what it is, and how it is trained where it is."""

from __future__ import annotations

from collections.abc import Sequence

from nas_kd.config.settings import settings
from nas_kd.config.types import Count, Finite, Natural, Positive, Share
from nas_kd.errors import SettingError
from nas_kd.train.config import TrainingConfig, TrainingSettings

EPOCHS = 20  # of train_teacher, where nothing else is said


@settings("teacher")
class TeacherConfig(TrainingConfig):
    """The fixed network that teaches."""

    model: str | None = "cifar_resnet20"
    """a timm name, cifar_resnet20/32/44/56/110, package.module:factory, or a student folder; null for no
    teacher: the search then follows the supernet's accuracy, and students learn from labels"""
    checkpoint: str | None = None
    """weights of the model: .safetensors, or a torch file of weights only"""
    pretrained: bool = False
    """load timm's pretrained weights (downloads them)"""
    stages: Sequence[str] | None = None
    """names of the teacher's layers that the student's stages learn from; null chooses them"""
    mean: Sequence[Finite] | None = None
    """channel means, in 0..1 units, of the teacher's own input normalisation; null takes the model's"""
    std: Sequence[Positive] | None = None
    """channel standard deviations, in the same form"""
    cache: str | None = None
    """folder of the teacher's stored logits, shared by several runs; null keeps them in the run"""
    epochs: Natural = 0
    """train or fine-tune the teacher on train for this many epochs; 0 uses it as it is (train_teacher: 20 epochs)"""
    batch_size: Count = 64
    """images per step"""
    lr: Positive = 0.05
    """peak learning rate"""
    smoothing: Share = 0.0
    """label smoothing"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_normalisation()
        if self.model is None and (self.epochs or self.checkpoint or self.pretrained):
            given = ", ".join(name for name in ("epochs", "checkpoint", "pretrained") if getattr(self, name))
            expected = f"a network, when teacher.{given} is given"
            raise SettingError("teacher.model", None, expected, "name a model, or leave that out")
        if self.epochs and (self.mean is not None or self.std is not None):
            expected = "null for a teacher that is trained here: it sees the data's own normalisation"
            raise SettingError("teacher.mean", self.mean, expected, "leave out teacher.mean and teacher.std")

    def _check_normalisation(self) -> None:
        for name, given, other in (("mean", self.mean, self.std), ("std", self.std, self.mean)):
            if given is not None and (other is None or len(other) != len(given)):
                expected = "one number per channel in teacher.mean and teacher.std, or null in both"
                raise SettingError(f"teacher.{name}", given, expected, "give both, or leave both out")

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


class TeacherSettings(TrainingSettings, total=False):
    """The settings of `TeacherConfig` as keywords, but for the network itself, which may be an object there."""

    checkpoint: str | None
    pretrained: bool
    stages: Sequence[str] | None
    mean: Sequence[float] | None
    std: Sequence[float] | None
    cache: str | None
    smoothing: float
