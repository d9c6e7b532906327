"""Settings of the training of one network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typing_extensions import TypedDict

from nas_kd.config.names import names_in_tables
from nas_kd.config.settings import Settings, settings
from nas_kd.config.types import Count, Finite, Natural, NotNegative, OpenShare, Positive, Share
from nas_kd.errors import SettingError, nearest

if TYPE_CHECKING:
    from nas_kd.distill import Method
else:
    Method = Annotated[Any, "the name of a method, package.module:object, or a list of losses and weights"]


Init = Literal["scratch", "supernet", "inherited"]
NEW_LR = 0.1  # peak learning rate of new weights
INHERITED_LR = 0.02  # of a trained teacher's: at 0.05 they lose 4 to 8 points in two epochs


def check_warmup(section: str, warmup_epochs: float, epochs: int) -> None:
    """Check that a warm-up ends before the training does; one epoch is cut to half of a shorter training."""
    if warmup_epochs >= epochs and warmup_epochs > 1:
        expected = f"below {section}.epochs={epochs}"
        raise SettingError(f"{section}.warmup_epochs", warmup_epochs, expected, "shorten the warm-up")


def checked_method_name(field: str, method: Any) -> Any:
    """Check that a distillation method or its losses exist, without importing them.

    Args:
        field: the setting, for the message.
        method: a name, ``package.module:object``, a list of losses and weights, what these name, or None.

    Returns:
        The method, pairs as tuples.

    Raises:
        SettingError: naming the first that does not exist.
    """
    if isinstance(method, str):
        known = names_in_tables("distill/methods", "Entry")
        if method not in known and ":" not in method:
            expected = "a method that `nas-kd methods` lists, or package.module:object"
            raise SettingError(field, method, expected, nearest(method, known))
        return method
    if not isinstance(method, list | tuple):
        if method is None or hasattr(method, "terms"):
            return method
        raise SettingError(field, method, "a method that `nas-kd methods` lists, or a list of [loss, weight]")
    return [_weighted(field, item) for item in method]


def _weighted(field: str, item: Any) -> Any:
    if hasattr(item, "weight"):  # a Term
        return item
    if not (isinstance(item, list | tuple) and len(item) == 2 and isinstance(item[0], str)):
        raise SettingError(field, item, "a list of [loss, weight]", "write [[ce, 0.1], [kd, 0.9]]")
    loss, weight = item
    known = ("ce", *names_in_tables("distill/terms.py", "Term"))
    if loss not in known:
        raise SettingError(field, loss, "a loss: " + ", ".join(known), nearest(loss, known))
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise SettingError(field, weight, f"a number, the weight of {loss}", "write [[ce, 0.1], [kd, 0.9]]")
    return loss, float(weight)


@settings("training")
class TrainingConfig(Settings):
    """How one network is trained; sections that train one have these settings besides their own."""

    epochs: Count = 30
    """passes over train"""
    batch_size: Count = 128
    """images per step"""
    lr: Positive = 0.1
    """peak learning rate"""
    momentum: Share = 0.9
    """momentum, of optimisers that have one"""
    weight_decay: NotNegative = 5e-4
    """weight decay, on neither norms nor biases"""
    warmup_epochs: NotNegative = 1.0
    """epochs of linear warm-up"""
    clip_grad: NotNegative = 0.0
    """greatest magnitude of an entry of the gradient; 0 does not clip"""
    optimizer: str = "sgd"
    """sgd (Nesterov momentum), or one of timm's optimisers by name, such as momentum, adamw or lamb"""
    schedule: Literal["cosine", "step"] = "cosine"
    """cosine (to zero) or step"""
    milestones: Sequence[Finite] | None = None
    """epochs after which the step schedule lowers the rate; null is 5/8, 3/4 and 7/8 of all"""
    factor: OpenShare = 0.1
    """what the step schedule multiplies the rate by"""
    ema: Share = 0.0
    """decay of an average of the weights that is used in their place at the end; 0 is off"""
    mixup: NotNegative = 0.0
    """parameter of mixup's beta distribution; 0 is off. A student's mixed images need a teacher that runs live"""
    cutmix: NotNegative = 0.0
    """the same of CutMix; with both, each batch is mixed by one of them"""

    def __post_init__(self) -> None:
        if not self.epochs:  # of a teacher that is used as it is
            return
        check_warmup(self.section, self.warmup_epochs, self.epochs)
        given = self.milestones
        if given is None:
            return
        name = f"{self.section}.milestones"
        if self.schedule != "step":
            expected = f"null with {self.section}.schedule={self.schedule}"
            raise SettingError(name, given, expected, f"set {self.section}.schedule=step")
        if not given or not all(a < b for a, b in pairwise([0, *given, self.epochs])):
            expected = f"epochs that rise, above 0 and below {self.section}.epochs={self.epochs}"
            raise SettingError(name, given, expected, "leave it out: 5/8, 3/4 and 7/8 of the epochs")

    @property
    def mixes(self) -> bool:
        """Whether images are mixed, which no stored answer of a teacher knows."""
        return self.mixup > 0 or self.cutmix > 0


@settings("retrain")
class RetrainConfig(TrainingConfig):
    """Distilled training of the found student, and of those it is compared with."""

    method: Method | None = None
    """distillation method, such as kd, kd_ls (logit-standardised) or dkd (`nas-kd methods` lists them), or a list
    of losses and weights such as [[ce, 0.1], [kd, 0.9]]; null is kd_ls, kd for inherited weights, ce without a
    teacher"""
    method_settings: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    """settings of a named method, such as {temperature: 4}; --method.temperature 4 for short"""
    seeds: Count = 3
    """trainings of every student, each from its own seed"""
    lr: Positive | None = None  # type: ignore[assignment]  # a number once it is `settled`
    """peak learning rate; null is 0.1, and 0.02 for inherited weights"""
    init: Init | None = None
    """weights that a student starts from: scratch (new ones), supernet (its), or inherited (those of the teacher, where
    it is the space); null is inherited where that is possible, else scratch"""
    random_students: Natural = 3
    """random students of the found one's MACs to compare with"""
    test: bool = True
    """measure each student once, after its last epoch, on the test images"""
    band: Positive = 0.05
    """how far, as a share, their MACs may lie from the found one's"""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "method", checked_method_name("retrain.method", self.method))

    def settled(self, *, taught: bool, inherited: bool) -> RetrainConfig:
        """Return the settings with numbers and names in the place of null.

        Args:
            taught: whether there is a teacher.
            inherited: whether the weights to begin with are the teacher's, which have less far to go.
        """
        method = self.method or ("ce" if not taught else "kd" if inherited else "kd_ls")
        lr = self.lr or (INHERITED_LR if inherited else NEW_LR)
        return replace(self, method=method, lr=lr)


class TrainingSettings(TypedDict, total=False):
    """The settings of `TrainingConfig` as keywords."""

    epochs: int
    batch_size: int
    lr: float
    momentum: float
    weight_decay: float
    warmup_epochs: float
    clip_grad: float
    optimizer: str
    schedule: Literal["cosine", "step"]
    milestones: Sequence[float] | None
    factor: float
    ema: float
    mixup: float
    cutmix: float


class RetrainSettings(TrainingSettings, total=False):
    """The settings of `RetrainConfig` as keywords."""

    lr: float | None  # type: ignore[misc]
    method: Method | None
    method_settings: Mapping[str, bool | int | float | str]
    seeds: int
    init: Init | None
    random_students: int
    test: bool
    band: float
