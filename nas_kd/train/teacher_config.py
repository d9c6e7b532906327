"""Settings of the teacher and of its training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from nas_kd.config.settings import Changed, settings
from nas_kd.config.types import Count, Finite, Natural, NotNegative, Positive, Share
from nas_kd.errors import SettingError
from nas_kd.train.config import TrainingConfig, TrainingSettings

EPOCHS = 20  # default of train_teacher
NEW_LR = 0.05  # peak learning rate of new weights, with SGD
NEW_WARMUP = 1.0  # epochs
PRETRAINED_LR = 3e-4  # of pretrained weights, with AdamW
PRETRAINED_SGD_LR = 1e-3
PRETRAINED_WARMUP = 0.1
TEXT_LR = 5e-5  # of a pretrained text encoder, with AdamW

TRAINED = "epochs of training or fine-tuning it on train; 0 does not train it (train_teacher: 20)"


# null until it is known whether the weights are pretrained ones; see `TeacherConfig.settled`
CHOSEN = {
    "optimizer": Changed(
        None,
        "sgd (Nesterov momentum), or one of timm's optimisers by name; null is sgd, and adamw for pretrained weights",
        str | None,
    ),
    "lr": Changed(
        None,
        "peak learning rate; null is 0.05, and for pretrained weights 0.0003 (0.001 with sgd, 0.00005 of texts)",
        Positive | None,
    ),
    "warmup_epochs": Changed(
        None, "epochs of linear warm-up; null is 1, and 0.1 for pretrained weights", NotNegative | None
    ),
}


@settings("teacher", {"epochs": Changed(0, TRAINED, Natural), "batch_size": 64, **CHOSEN})
class TeacherConfig(TrainingConfig):
    """The teacher, a fixed network."""

    model: str | None = "cifar_resnet20"
    """a timm name, cifar_resnet20/32/44/56/110, package.module:factory, a student folder, or one that transformers
    saved, or its name on the hub (OWNER/NAME); null for no teacher: the search then uses the accuracy of subnets, and
    students learn from labels"""
    checkpoint: str | None = None
    """weights of the model: .safetensors, or a torch file of weights only"""
    pretrained: bool = False
    """load timm's pretrained weights (downloads them)"""
    others: Sequence[str] | None = None
    """further teachers, whose answers the method multi_teacher averages with weights it learns: NAME=FILE,
    NAME=pretrained, package.module:factory, or a student folder; null is none"""
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
    freeze_norms: bool | None = None
    """keep the statistics of batch norms in training; null keeps those of pretrained weights"""
    resolution: Count | None = None
    """image size in pixels that the teacher sees: images are resized to it; null is that of the data"""
    grey: Literal["repeat", "sum"] | None = None
    """how a teacher of RGB images sees grey ones: repeat shows them in three channels, sum adds up its first
    convolution; null is repeat, and sum where the teacher is the space or is trained"""
    check: Literal["error", "warn", "off"] = "error"
    """what a teacher that seems wrong on the rate images is (at chance, classes in another order, a softmax at the
    end, another normalisation ...): an error, a warning, or not looked for"""

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
        if self.epochs and self.resolution is not None:
            expected = "null for a teacher that is trained here, on images of the data's size"
            raise SettingError("teacher.resolution", self.resolution, expected, "set data.resolution")
        if self.epochs and self.grey == "repeat":
            expected = "sum or null for a teacher that is trained here, on the data's own channels"
            raise SettingError("teacher.grey", self.grey, expected, "leave it out")

    def _check_normalisation(self) -> None:
        for name, given, other in (("mean", self.mean, self.std), ("std", self.std, self.mean)):
            if given is not None and (other is None or len(other) != len(given)):
                expected = "one number per channel in teacher.mean and teacher.std, or null in both"
                raise SettingError(f"teacher.{name}", given, expected, "set both or neither")

    def settled(self, *, pretrained: bool, texts: bool = False) -> TeacherConfig:
        """Return the settings with numbers and names in the place of null.

        Args:
            pretrained: whether the weights to begin with are trained ones, which have less far to go.
            texts: whether the network is a text encoder.
        """
        optimizer = self.optimizer or ("adamw" if pretrained else "sgd")
        trained_lr = PRETRAINED_SGD_LR if optimizer == "sgd" else TEXT_LR if texts else PRETRAINED_LR
        warmup = self.warmup_epochs
        if warmup is None:
            warmup = PRETRAINED_WARMUP if pretrained else NEW_WARMUP
        lr = self.lr or (trained_lr if pretrained else NEW_LR)
        freeze = pretrained if self.freeze_norms is None else self.freeze_norms
        return replace(self, optimizer=optimizer, lr=lr, warmup_epochs=warmup, freeze_norms=freeze)

    @property
    def has_weights(self) -> bool:
        """Whether the model comes with weights of its own, or some are named."""
        return self.model is not None and bool(_has_weights(self.model) or self.checkpoint or self.pretrained)

    def need_weights(self) -> None:
        """Reject a teacher that would have random weights.

        Raises:
            SettingError: a plain model name without checkpoint, pretrained weights or epochs.
        """
        for text in self.others or ():
            if "=" not in text and not _has_weights(text):
                expected = "a teacher with weights: NAME=FILE, NAME=pretrained, a factory, or a student folder"
                raise SettingError("teacher.others", text, expected, f"write {text}=FILE")
        if self.model is None:
            return
        if not (self.has_weights or self.epochs):
            raise SettingError(
                "teacher.checkpoint",
                None,
                f"weights for teacher.model={self.model}",
                "set teacher.checkpoint, teacher.pretrained=true, or teacher.epochs to train it",
            )


def _has_weights(model: str) -> bool:
    """Whether a teacher's name stands for weights too: a factory or a student folder."""
    return ":" in model or "/" in model or model.startswith(".")


class TeacherSettings(TrainingSettings, total=False):
    """The settings of `TeacherConfig` as keywords, without the model, which may be an object."""

    checkpoint: str | None
    pretrained: bool
    others: Sequence[str] | None
    stages: Sequence[str] | None
    mean: Sequence[float] | None
    std: Sequence[float] | None
    cache: str | None
    smoothing: float
    optimizer: str | None  # type: ignore[misc]
    lr: float | None  # type: ignore[misc]
    warmup_epochs: float | None  # type: ignore[misc]
    freeze_norms: bool | None
    resolution: int | None
    grey: Literal["repeat", "sum"] | None
    check: Literal["error", "warn", "off"]
