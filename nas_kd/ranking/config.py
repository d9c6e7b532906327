"""Settings of the judgement of scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

from nas_kd.config.checks import MIN_ARCHS
from nas_kd.config.names import names_in_tables
from nas_kd.config.settings import Settings, fields_of, settings
from nas_kd.config.types import LARGEST, Count, Images, Natural, NotNegative, OpenShare, Positive, Share
from nas_kd.errors import SettingError, nearest
from nas_kd.searcher.amounts import check_budget
from nas_kd.train.config import TrainingConfig, check_warmup, checked_method_name

if TYPE_CHECKING:
    from nas_kd.rate.scores import Score
else:
    Score = Annotated[Any, "the name of a score, or package.module:object"]

Sample = Annotated[int, Field(ge=MIN_ARCHS, lt=LARGEST)]  # of archs that a rank correlation can be taken over


@settings("rank")
class RankConfig(Settings):
    """How far scores can be trusted: archs trained alone, and scores of the same archs."""

    scores: Sequence[str | Score] | None = None
    """scores to judge, by name; null is all that there are: `nas_kd.rate.scores.SCORES`"""
    primary: str = "tuned"
    """the one score that is tested without correction, named before the truth is known"""
    control: str = "minus_depth"
    """the one size control that it is tested against: macs, params, log_widths, depth or minus_depth"""
    bands: Sequence[str | int | float] | None = None
    """MACs in the middle of each band: shares of the largest (40%) or numbers (4M); null takes percentiles"""
    band: OpenShare = 0.05
    """half the width of a band, as a share of its middle"""
    in_band: Sample = 32
    """archs a band"""
    overall: Natural = 16
    """archs over all sizes"""
    archs: str | None = None
    """archs.csv of another ranking, whose archs are taken: for another teacher, or a longer training"""
    limit: Sample | None = None
    """only the first so many of those archs"""
    seeds: Count = 2
    """trainings of each arch; more may be asked for later"""
    train: bool = True
    """train what is not trained yet; false judges by what there is, also while others train"""
    method: str = "kd"
    """distillation method of the trainings, on logits alone"""
    epochs: Count = 10
    """passes over train"""
    batch_size: Count = 64
    """images per step"""
    lr: Positive = 0.05
    """peak learning rate"""
    momentum: Share = 0.9
    """Nesterov momentum"""
    weight_decay: NotNegative = 5e-4
    """weight decay, on neither norms nor biases"""
    warmup_epochs: NotNegative = 1.0
    """epochs of linear warm-up"""
    clip_grad: NotNegative = 0.0
    """greatest magnitude of an entry of the gradient; 0 does not clip"""
    ema: Share = 0.0
    """decay of an average of the weights that is measured in their place; 0 is off"""
    images: Count = 1024
    """rating images that scores measure on"""
    calibration_images: Images = 512
    """training images that norm statistics are measured on"""
    resamples: Count = 10_000
    """bootstrap resamples over archs, with their seeds inside"""

    def __post_init__(self) -> None:
        check_warmup("rank", self.warmup_epochs, self.epochs)
        checked_method_name("rank.method", self.method)
        for score in self.scores or ():
            check_score("rank.scores", score)
        own = [score.name for score in self.scores or () if not isinstance(score, str)]
        for name in ("primary", "control"):
            if getattr(self, name) not in own:
                check_score(f"rank.{name}", getattr(self, name))
        if self.primary == self.control:
            expected = "another score than rank.control"
            raise SettingError("rank.primary", self.primary, expected, "name a score to be judged")
        if self.limit is not None and self.archs is None:
            expected = "null without rank.archs: a new sample has the size of its groups"
            raise SettingError("rank.limit", self.limit, expected, "lower rank.in_band and rank.overall")
        names = [getattr(score, "name", score) for score in self.scores or ()]
        for field in ("primary", "control"):
            if names and getattr(self, field) not in names:
                expected = f"one of rank.scores: {', '.join(map(str, names))}"
                raise SettingError(f"rank.{field}", getattr(self, field), expected, f"set rank.{field} too")
        if self.archs is None and self.bands is not None and not self.bands and self.overall < MIN_ARCHS:
            expected = f"{MIN_ARCHS} or more without rank.bands: fewer archs give no rank correlation"
            raise SettingError(
                "rank.overall", self.overall, expected, f"use rank.overall={MIN_ARCHS}, or give rank.bands"
            )
        for middle in self.bands or ():
            check_budget(middle, "rank.bands")

    @property
    def training(self) -> dict[str, Any]:
        """Method and settings of each training, by name."""
        return {name: getattr(self, name) for name in TRAINING}


# what of a ranking's settings says how each arch is trained
TRAINING = ("method", *(name for name in fields_of(TrainingConfig) if name in fields_of(RankConfig)))


def check_score(field: str, score: Any) -> None:
    """Check that a score exists, without importing it.

    Args:
        field: the setting, for the message.
        score: a name, ``package.module:object``, or a score.

    Raises:
        SettingError: there is none of that name.
    """
    if hasattr(score, "measure"):
        return
    known = names_in_tables("rate/scores", "Score")
    if not isinstance(score, str):
        raise SettingError(field, score, "a list of names of scores", nearest(str(score), known))
    if score not in known and ":" not in score:
        expected = f"{', '.join(known)}, or package.module:object"
        raise SettingError(field, score, expected, nearest(score, known, "leave it out"))


class RankSettings(TypedDict, total=False):
    """The settings of `RankConfig` as keywords."""

    scores: Sequence[str | Score] | None
    primary: str
    control: str
    bands: Sequence[str | int | float] | None
    band: float
    in_band: int
    overall: int
    archs: str | None
    limit: int | None
    seeds: int
    train: bool
    method: str
    epochs: int
    batch_size: int
    lr: float
    momentum: float
    weight_decay: float
    warmup_epochs: float
    clip_grad: float
    ema: float
    images: int
    calibration_images: int
    resamples: int
