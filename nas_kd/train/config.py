"""Settings of the training of one network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typing_extensions import Self

from nas_kd.config.names import names_in_tables
from nas_kd.config.settings import Changed, settings
from nas_kd.config.types import Count, Finite, Natural, NotNegative, OpenShare, Positive
from nas_kd.errors import SettingError, nearest
from nas_kd.train.learning_config import NetworkLearningConfig, NetworkLearningSettings

if TYPE_CHECKING:
    from nas_kd.distill import Method
else:
    Method = Annotated[Any, "the name of a method, package.module:object, or a list of losses and weights"]


Init = Literal["scratch", "supernet", "inherited"]
NEW_LR = 0.1  # peak learning rate of new weights
INHERITED_LR = 0.01  # of a trained teacher's: at 0.05 they lose 4 to 8 points in two epochs
TEXT_NEW_LR = 5e-4  # of text encoders, with AdamW
TEXT_INHERITED_LR = 1e-4
NEW_WARMUP = 1.0  # epochs
INHERITED_WARMUP = 0.1


MOST_LOSSES = 100
GROWS = ("seeds", "random_students", "rivals")  # more of them are trained besides those that a run has


def checked_method_name(field: str, method: Any) -> Any:
    """Check that a distillation method or its losses exist, without importing them.

    Args:
        field: the setting, for the error message.
        method: a name, ``package.module:object``, a list of losses and weights, a Recipe, or None.

    Returns:
        The method, with pairs as tuples.

    Raises:
        SettingError: with the first that does not exist.
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
    if len(method) > MOST_LOSSES:
        raise SettingError(
            field, f"{len(method)} losses", f"at most {MOST_LOSSES} losses", "add up the weights of equal ones"
        )
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
        raise SettingError(field, weight, f"a number as the weight of {loss}", "write [[ce, 0.1], [kd, 0.9]]")
    return loss, float(weight)


@settings(
    "training",
    {"batch_size": 128, "momentum": Changed(0.9, "momentum, for optimisers that have one")},
    {"ema": "factor"},
)
class TrainingConfig(NetworkLearningConfig):
    """The training of one network; sections that train one have these settings besides their own."""

    optimizer: str = "sgd"
    """sgd (Nesterov momentum), or one of timm's optimisers by name, such as momentum, adamw or lamb"""
    schedule: Literal["cosine", "step"] = "cosine"
    """cosine (to zero) or step"""
    milestones: Sequence[Finite] | None = None
    """epochs after which the step schedule lowers the learning rate; null is 5/8, 3/4 and 7/8 of all"""
    factor: OpenShare = 0.1
    """factor by which the step schedule multiplies the learning rate"""
    mixup: NotNegative = 0.0
    """parameter of mixup's beta distribution; 0 is off. For a student the teacher then runs live"""
    cutmix: NotNegative = 0.0
    """the same for CutMix; with both, each batch uses one of them"""

    def __post_init__(self) -> None:
        super().__post_init__()
        given = self.milestones
        if given is None or not self.epochs:  # a teacher that is not trained
            return
        name = f"{self.section}.milestones"
        if self.schedule != "step":
            expected = f"null with {self.section}.schedule={self.schedule}"
            raise SettingError(name, given, expected, f"set {self.section}.schedule=step")
        if not given or not all(a < b for a, b in pairwise([0, *given, self.epochs])):
            expected = f"ascending epochs, above 0 and below {self.section}.epochs={self.epochs}"
            raise SettingError(name, given, expected, "omit it for 5/8, 3/4 and 7/8 of the epochs")

    def fitted(self, images: int, parts: int = 1) -> Self:
        """Return settings with a batch that the training images fill, even where images are mixed in pairs."""
        return super().fitted(images, 2 * parts if self.mixes else parts)

    @property
    def mixes(self) -> bool:
        """Whether images are mixed, so that stored logits cannot be used."""
        return self.mixup > 0 or self.cutmix > 0


@settings("retrain")
class RetrainConfig(TrainingConfig):
    """Distilled training of the found student and of its controls."""

    method: Method | None = None
    """distillation method, such as kd, logit_mse or dkd (`nas-kd methods` lists them), or a list of losses and weights
    such as [[ce, 0.1], [kd, 0.9]]; null is kd, or ce without a teacher"""
    method_settings: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    """settings of a named method, such as {temperature: 4}; --method.temperature 4 for short"""
    seeds: Count = 3
    """trainings of every student, each with its own seed"""
    optimizer: str | None = None  # type: ignore[assignment]  # a name once it is `settled`
    """sgd (Nesterov momentum), or one of timm's optimisers by name, such as momentum, adamw or lamb; null is sgd, and
    adamw for texts"""
    lr: Positive | None = None  # type: ignore[assignment]  # likewise
    """peak learning rate; null is 0.1, and 0.01 for inherited weights; for texts 0.0005 and 0.0001"""
    warmup_epochs: NotNegative | None = None  # type: ignore[assignment]  # likewise
    """epochs of linear warm-up; null is 1, and 0.1 for inherited weights"""
    init: Init | None = None
    """initial weights of a student: scratch (new ones), supernet, or inherited (the teacher's, if it is the space);
    null is inherited if possible, else scratch"""
    rivals: Sequence[str] | None = None
    """what else the found student is compared with. Of the teacher as the space: new_weights (the found arch from new
    ones), even_width, even_depth and even_both (the teacher cut evenly), taylor (cut by torch-pruning), small_images
    (the teacher at a smaller input), even_both_repaired (its cuts repaired as the found one's); anywhere: timm models
    that keep the budget, as NAME, NAME=pretrained or NAME=FILE, nni:NAME of NNI's hub, and soft_tree=DEPTH; of texts
    bag (the teacher's embeddings and a linear layer), bilstm=HIDDEN, shallow=LAYERSxWIDTH (an encoder with new weights)
    and pretrained=FOLDER (of transformers). null is the first six if they exist"""
    random_students: Natural = 3
    """number of random students of the same MACs as the found one, as controls"""
    ensemble: Natural = 0
    """members of an ensemble that is grown of the students' archs after them (AdaNAS); 0 grows none"""
    test: bool = True
    """evaluate each student once on the test images, after its last epoch"""
    band: Positive = 0.05
    """allowed relative difference of their MACs to the found one's"""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "method", checked_method_name("retrain.method", self.method))

    def settled(self, *, taught: bool, inherited: bool, texts: bool = False) -> RetrainConfig:
        """Return the settings with numbers and names in the place of null.

        Args:
            taught: whether there is a teacher.
            inherited: whether the weights to begin with are the teacher's, which have less far to go.
            texts: whether the network is a text encoder, which SGD hardly trains.
        """
        method = self.method or ("kd" if taught else "ce")
        inherited_lr, new_lr = (TEXT_INHERITED_LR, TEXT_NEW_LR) if texts else (INHERITED_LR, NEW_LR)
        lr = self.lr or (inherited_lr if inherited else new_lr)
        optimizer = self.optimizer or ("adamw" if texts else "sgd")
        warmup = self.warmup_epochs
        if warmup is None:
            warmup = INHERITED_WARMUP if inherited else NEW_WARMUP
        return replace(self, method=method, optimizer=optimizer, lr=lr, warmup_epochs=warmup)


class TrainingSettings(NetworkLearningSettings, total=False):
    """The settings of `TrainingConfig` as keywords."""

    optimizer: str
    schedule: Literal["cosine", "step"]
    milestones: Sequence[float] | None
    factor: float
    mixup: float
    cutmix: float


class RetrainSettings(TrainingSettings, total=False):
    """The settings of `RetrainConfig` as keywords."""

    optimizer: str | None  # type: ignore[misc]
    lr: float | None  # type: ignore[misc]
    warmup_epochs: float | None  # type: ignore[misc]
    method: Method | None
    method_settings: Mapping[str, bool | int | float | str]
    seeds: int
    init: Init | None
    rivals: Sequence[str] | None
    random_students: int
    ensemble: int
    test: bool
    band: float
