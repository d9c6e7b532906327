"""Settings of the repair of a teacher's cut units."""

from __future__ import annotations

from nas_kd.config.settings import Changed, settings
from nas_kd.config.types import Count, Natural
from nas_kd.train.learning_config import LearningConfig, LearningSettings


@settings(
    "repair",
    {
        "epochs": Changed(1, "passes over train; 0 leaves the cuts as they are", Natural),
        "lr": Changed(0.001, "peak learning rate (AdamW)"),
        "weight_decay": 0.0,
    },
)
class RepairConfig(LearningConfig):
    """Every cut of a unit learns the teacher's output of the unit from the teacher's input, before units are rated."""

    choices: Count | None = 1
    """cuts of each unit that learn in a step, drawn anew; null is all of them"""
    student_epochs: Natural = 0
    """passes over train in which each student that is retrained learns unit by unit, after the search, from what its
    own units before give; 0 leaves it out: as many more epochs of retraining do as well or better"""

    @property
    def any(self) -> bool:
        """Whether anything is repaired."""
        return bool(self.epochs or self.student_epochs)


class RepairSettings(LearningSettings, total=False):
    """The settings of `RepairConfig` as keywords."""

    choices: int | None
    student_epochs: int
