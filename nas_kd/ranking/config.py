"""Settings of the evaluation of scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from nas_kd.config.checks import MIN_ARCHS
from nas_kd.config.names import names_in_tables
from nas_kd.config.settings import Changed, fields_of, settings
from nas_kd.config.types import LARGEST, Count, Natural, NotNegative, OpenShare, Positive
from nas_kd.data.config import CalibrationConfig, CalibrationSettings
from nas_kd.errors import SettingError, nearest
from nas_kd.searcher.amounts import check_budget
from nas_kd.train.config import RetrainConfig, TrainingConfig, checked_method_name
from nas_kd.train.learning_config import NetworkLearningConfig, NetworkLearningSettings

if TYPE_CHECKING:
    from nas_kd.rate.scores import Score
else:
    Score = Annotated[Any, "the name of a score, or package.module:object"]

Sample = Annotated[int, Field(ge=MIN_ARCHS, lt=LARGEST)]  # number of archs, enough for a rank correlation


NEW_LR = 0.05  # peak learning rate of new weights

# a larger number goes on from what a ranking has
GROWS = ("in_band", "overall", "limit", "seeds")
AVERAGE = "decay of an exponential moving average of the weights, which is evaluated instead; 0 is off"


# null until it is known whether archs inherit a teacher's weights; see `RankConfig.settled`
CHOSEN = {
    "lr": Changed(None, "peak learning rate; null is 0.05, and that of retrain for inherited weights", Positive | None),
    "warmup_epochs": Changed(
        None, "epochs of linear warm-up; null is 1, and 0.1 for inherited weights", NotNegative | None
    ),
}


@settings(
    "rank",
    {"epochs": 10, "ema": Changed(0.0, AVERAGE), **CHOSEN},
    {"epochs": "method", "calibration_images": "images"},
)
class RankConfig(NetworkLearningConfig, CalibrationConfig):
    """How far scores can be trusted: standalone trainings of archs, and scores of the same archs."""

    scores: Sequence[str | Score] | None = None
    """scores to evaluate, by name; null uses all: `nas_kd.rate.scores.SCORES`"""
    primary: str = "tuned"
    """the one score that is tested without correction, chosen before the ground truth is known"""
    control: str = "minus_depth"
    """the one size control that it is tested against: macs, params, log_widths, depth, minus_depth or
    minus_last_depth"""
    bands: Sequence[str | int | float] | None = None
    """MACs at the centre of each band: shares of the largest (40%) or numbers (4M); null uses percentiles"""
    band: OpenShare = 0.05
    """half the width of a band, relative to its centre"""
    in_band: Sample = 32
    """archs per band"""
    overall: Natural = 16
    """archs over all sizes"""
    archs: str | None = None
    """archs.csv of another ranking, to reuse its archs with another teacher or a longer training"""
    limit: Sample | None = None
    """use only this many of those archs"""
    seeds: Count = 2
    """trainings of each arch; it can be increased later"""
    train: bool = True
    """train missing archs; false evaluates the trainings so far, even while others train"""
    method: str = "kd"
    """distillation method of the trainings, on logits only"""
    optimizer: str | None = None
    """sgd (Nesterov momentum), or one of timm's optimisers by name; null is sgd, and adamw for texts"""
    images: Count = 1024
    """images of the rate split on which scores are measured"""
    resamples: Count = 10_000
    """bootstrap resamples over archs and, within them, seeds"""

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_method_name("rank.method", self.method)
        for score in self.scores or ():
            check_score("rank.scores", score)
        own = [score.name for score in self.scores or () if not isinstance(score, str)]
        for name in ("primary", "control"):
            if getattr(self, name) not in own:
                check_score(f"rank.{name}", getattr(self, name))
        if self.primary == self.control:
            expected = "a score other than rank.control"
            raise SettingError("rank.primary", self.primary, expected, "choose the score to evaluate")
        if self.limit is not None and self.archs is None:
            expected = "null without rank.archs: a new sample has the size of its groups"
            raise SettingError("rank.limit", self.limit, expected, "lower rank.in_band and rank.overall")
        names = [getattr(score, "name", score) for score in self.scores or ()]
        for field in ("primary", "control"):
            if names and getattr(self, field) not in names:
                expected = f"one of rank.scores: {', '.join(map(str, names))}"
                raise SettingError(f"rank.{field}", getattr(self, field), expected, f"set rank.{field} too")
        if self.archs is None and self.bands is not None and not self.bands and self.overall < MIN_ARCHS:
            expected = f"{MIN_ARCHS} or more without rank.bands: fewer archs have no rank correlation"
            raise SettingError(
                "rank.overall", self.overall, expected, f"use rank.overall={MIN_ARCHS}, or set rank.bands"
            )
        for middle in self.bands or ():
            check_budget(middle, "rank.bands")

    def settled(self, *, inherited: bool, texts: bool) -> RankConfig:
        """Return the settings with numbers and names in the place of null, as those of `RetrainConfig`.

        Args:
            inherited: whether archs begin with a teacher's weights.
            texts: whether they are text encoders.
        """
        retraining = RetrainConfig().settled(taught=True, inherited=inherited, texts=texts)
        lr = self.lr or (retraining.lr if inherited or texts else NEW_LR)
        assert lr is not None  # it is settled
        warmup = retraining.warmup_epochs if self.warmup_epochs is None else self.warmup_epochs
        optimizer = self.optimizer or retraining.optimizer
        return replace(self, optimizer=optimizer, lr=lr, warmup_epochs=warmup)

    @property
    def training(self) -> dict[str, Any]:
        """Method and settings of each training, by name; sgd goes without saying, as older rankings did not name it."""
        return {name: getattr(self, name) for name in TRAINING if (name, getattr(self, name)) != ("optimizer", "sgd")}


# the settings of a ranking that determine how each arch is trained
TRAINING = ("method", *(name for name in fields_of(TrainingConfig) if name in fields_of(RankConfig)))


def check_score(field: str, score: Any) -> None:
    """Check that a score exists, without importing it.

    Args:
        field: the setting, for the error message.
        score: a name, ``package.module:object``, or a score.

    Raises:
        SettingError: there is no such score.
    """
    if hasattr(score, "measure"):
        return
    known = names_in_tables("rate/scores", "Score")
    if not isinstance(score, str):
        raise SettingError(field, score, "a list of names of scores", nearest(str(score), known))
    if score not in known and ":" not in score:
        expected = f"{', '.join(known)}, or package.module:object"
        raise SettingError(field, score, expected, nearest(score, known, "omit it"))


class RankSettings(NetworkLearningSettings, CalibrationSettings, total=False):
    """The settings of `RankConfig` as keywords."""

    lr: float | None  # type: ignore[misc]
    warmup_epochs: float | None  # type: ignore[misc]
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
    optimizer: str | None
    images: int
    resamples: int
