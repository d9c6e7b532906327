"""Settings of the judgement of scores."""

from __future__ import annotations

from dataclasses import dataclass

from nas_kd.config.checks import LEAST, check_budget, natural, number, positive, share, warmup, word
from nas_kd.config.names import SCORES, SIZES, check_method
from nas_kd.errors import SettingError


@dataclass(frozen=True)
class RankConfig:
    """How far scores can be trusted: archs trained alone, and scores of the same archs."""

    scores: list[str] | None = None
    """scores to judge, by name; null is all that there are: `nas_kd.rate.scores.SCORES`"""
    primary: str = "tuned"
    """the one score that is tested without correction, named before the truth is known"""
    control: str = "minus_depth"
    """the one size control that it is tested against: macs, params, log_widths, depth or minus_depth"""
    bands: list[str | int | float] | None = None
    """MACs in the middle of each band: shares of the largest (40%) or numbers (4M); null takes percentiles"""
    band: float = 0.05
    """half the width of a band, as a share of its middle"""
    in_band: int = 32
    """archs a band"""
    overall: int = 16
    """archs over all sizes"""
    archs: str | None = None
    """archs.csv of another ranking, whose archs are taken: for another teacher, or a longer training"""
    limit: int | None = None
    """only the first so many of those archs"""
    seeds: int = 2
    """trainings of each arch; more may be asked for later"""
    train: bool = True
    """train what is not trained yet; false judges by what there is, also while others train"""
    method: str = "kd"
    """distillation method of the trainings, on logits alone"""
    epochs: int = 10
    """passes over train"""
    batch_size: int = 64
    """images a step"""
    lr: float = 0.05
    """peak learning rate"""
    momentum: float = 0.9
    """Nesterov momentum"""
    weight_decay: float = 5e-4
    """weight decay, on neither norms nor biases"""
    warmup_epochs: float = 1.0
    """epochs of linear warm-up"""
    clip_grad: float = 0.0
    """greatest magnitude of an entry of the gradient; 0 does not clip"""
    ema: float = 0.0
    """decay of an average of the weights that is measured in their place; 0 is off"""
    images: int = 1024
    """rating images that scores measure on"""
    calibration_images: int = 512
    """training images that norm statistics are measured on"""
    resamples: int = 10_000
    """bootstrap resamples over archs, with their seeds inside"""

    def __post_init__(self) -> None:
        positive("rank", self, "band", "seeds", "epochs", "batch_size", "lr", "images", "resamples")
        natural("rank", self, "overall", "weight_decay", "warmup_epochs", "clip_grad")
        share("rank", self, "band", "momentum", "ema")
        number("rank", self, "2 or more", lambda value: value >= 2, "calibration_images")
        number("rank", self, f"{LEAST} or more", lambda value: value >= LEAST, "in_band", "limit")
        warmup("rank", self.warmup_epochs, self.epochs)
        check_method("rank.method", self.method)
        for score in self.scores or ():
            word("rank.scores", score, SCORES)
        word("rank.primary", self.primary, SCORES)
        word("rank.control", self.control, SIZES)
        if self.primary == self.control:
            legal = "another score than rank.control"
            raise SettingError("rank.primary", self.primary, legal, "name a score to be judged")
        if self.limit is not None and self.archs is None:
            legal = "null without rank.archs: a new sample has the size of its groups"
            raise SettingError("rank.limit", self.limit, legal, "lower rank.in_band and rank.overall")
        for field in ("primary", "control"):
            if self.scores and getattr(self, field) not in self.scores:
                legal = f"one of rank.scores: {', '.join(self.scores)}"
                raise SettingError(f"rank.{field}", getattr(self, field), legal, f"set rank.{field} too")
        if self.archs is None and self.bands == [] and self.overall < LEAST:
            legal = f"{LEAST} or more without rank.bands: fewer archs give no rank correlation"
            raise SettingError("rank.overall", self.overall, legal, f"use rank.overall={LEAST}, or give rank.bands")
        for middle in self.bands or ():
            check_budget(middle, "rank.bands")
