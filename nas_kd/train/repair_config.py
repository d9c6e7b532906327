"""Settings of the repair of a teacher's cut units."""

from __future__ import annotations

from typing_extensions import TypedDict

from nas_kd.config.settings import Settings, settings
from nas_kd.config.types import Count, Natural, NotNegative, Positive


@settings("repair")
class RepairConfig(Settings):
    """Every cut of a unit learns the teacher's output of the unit from the teacher's input, before units are rated."""

    epochs: Natural = 1
    """passes over train; 0 leaves the cuts as they are"""
    batch_size: Count = 64
    """images per step"""
    lr: Positive = 0.001
    """peak learning rate (AdamW)"""
    weight_decay: NotNegative = 0.0
    """weight decay, except of norms and biases"""
    choices: Count | None = 1
    """cuts of each unit that learn in a step, drawn anew; null is all of them"""


class RepairSettings(TypedDict, total=False):
    """The settings of `RepairConfig` as keywords."""

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    choices: int | None
