"""Settings of blockwise supervision and rating."""

from __future__ import annotations

from typing import Literal

from nas_kd.config.settings import Changed, settings
from nas_kd.config.types import Count, NotNegative, Share
from nas_kd.data.config import MeasuringConfig, MeasuringSettings
from nas_kd.errors import SettingError
from nas_kd.train.learning_config import LearningConfig, LearningSettings


@settings(
    "blockwise",
    {"epochs": 5, "lr": Changed(0.01, "peak learning rate (AdamW)"), "weight_decay": 1e-4},
    {"epochs": "train", "rate_images": "error", "calibration_images": "rate_images"},
)
class BlockwiseConfig(LearningConfig, MeasuringConfig):
    """Blockwise supervision by the teacher and the rating of every candidate of a stage."""

    train: bool = True
    """train the stages on the teacher's features (DNA); false trains the adapters only"""
    init: Literal["supernet", "scratch"] = "supernet"
    """supernet or scratch: the weights that the stages start from"""
    sampling: Literal["fair", "uniform"] = "fair"
    """fair (every choice of every layer equally often) or uniform"""
    paths: Count | None = None
    """paths per stage and step; null is one per choice of a layer, at most 4"""
    mix: Share = 0.0
    """share of the steps in which a stage gets the student's previous output instead of the teacher's feature"""
    source: Literal["teacher", "average"] = "teacher"
    """what stages learn from: the teacher, or the moving average of their own weights (DNA++), which needs
    neither teacher nor labels; one stage then learns after the other, for equal shares of the steps"""
    average_decay: Share = 0.99
    """decay of that average, per step"""
    spread: NotNegative = 0.1
    """weight of the likeness of different images' outputs, with the average: without it all may become alike"""
    error: Literal["nsr", "nmse", "relative_l1", "cosine"] = "nsr"
    """the score: nsr (squared error over the variance of the teacher's channel), nmse (over the teacher's
    energy), relative_l1 (absolute error over the standard deviation) or cosine (of the means over positions)"""
    max_rows: Count = 20_000
    """rate all candidates of a stage up to this many rows (input width x candidate), else by successive halving"""
    cache_gb: NotNegative = 0.0
    """store the teacher's features of all views in the run, in fp16, if they need at most this many GB, so that
    epochs beyond data.views and stages in separate processes do not run the teacher; 0 stores none"""
    stage: Count | None = None
    """rate only this stage, from 1: `nas-kd blockwise --stage 3`, several in parallel; null rates all"""

    def __post_init__(self) -> None:
        if self.mix and self.stage is not None:
            expected = "null with blockwise.mix, which feeds a stage the output of the previous ones"
            raise SettingError(
                "blockwise.stage", self.stage, expected, "rate all stages together, or use blockwise.mix=0"
            )
        if self.source == "average":
            self._check_average()

    def _check_average(self) -> None:
        """Refuse what does not go with the average of the stages as their own teacher."""
        for name, fits, needed, why in (
            ("error", self.error == "cosine", "cosine", "which is what stages learn there"),
            ("train", self.train, "true", "for its weights are those that are learned"),
            ("stage", self.stage is None, "null", "for a stage learns on the outputs of those before it"),
            ("mix", not self.mix, "0", "for inputs are its own already"),
            ("cache_gb", not self.cache_gb, "0", "for its features change in every step"),
        ):
            if not fits:
                hint = f"use blockwise.{name}={needed}, or blockwise.source=teacher"
                expected = f"{needed} with blockwise.source=average, {why}"
                raise SettingError(f"blockwise.{name}", getattr(self, name), expected, hint)

    @property
    def hidden(self) -> tuple[str, ...]:
        """What a record leaves out: runs recorded before the average was there lack its settings."""
        return () if self.source == "average" else ("source", "average_decay", "spread")


class BlockwiseSettings(LearningSettings, MeasuringSettings, total=False):
    """The settings of `BlockwiseConfig` as keywords."""

    train: bool
    init: Literal["supernet", "scratch"]
    sampling: Literal["fair", "uniform"]
    paths: int | None
    mix: float
    source: Literal["teacher", "average"]
    average_decay: float
    spread: float
    error: Literal["nsr", "nmse", "relative_l1", "cosine"]
    max_rows: int
    cache_gb: float
    stage: int | None
