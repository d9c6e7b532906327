"""The measures that a run may go by: their words, their unit, and which way is better."""

from __future__ import annotations

from typing import NamedTuple


class Measure(NamedTuple):
    """What trained networks are compared by.

    Args:
        name: as settings and columns have it.
        words: as texts have it.
        lower: lower values are better.
        percent: shown in percent, being a share of 1; else in its own unit.
    """

    name: str
    words: str
    lower: bool = False
    percent: bool = True

    @property
    def sign(self) -> float:
        """What values are multiplied by so that higher is better."""
        return -1.0 if self.lower else 1.0

    @property
    def factor(self) -> float:
        """What values are multiplied by to be shown."""
        return 100.0 if self.percent else 1.0

    @property
    def symbol(self) -> str:
        """What stands behind a value that is shown."""
        return " %" if self.percent else ""

    @property
    def points(self) -> str:
        """What stands behind a difference that is shown."""
        return " points" if self.percent else ""

    @property
    def digits(self) -> int:
        """Digits behind the point of a value that is shown."""
        return 2 if self.percent else 4

    @property
    def suffix(self) -> str:
        """The end of a column's name that has values as they are shown."""
        return "_percent" if self.percent else ""

    def title(self, where: str = "") -> str:
        """Return the title of a column or axis: ``mAP (%, rate split)``."""
        inside = ", ".join(part for part in ("%" if self.percent else "", where) if part)
        return f"{self.words} ({inside})" if inside else self.words


ACCURACY = Measure("accuracy", "accuracy")
# name at the command line -> measure
MEASURES: dict[str, Measure] = {
    "accuracy": ACCURACY,
    "balanced_accuracy": Measure("balanced_accuracy", "balanced accuracy"),
    "macro_f1": Measure("macro_f1", "macro F1"),
    "map": Measure("map", "mAP"),
    "r2": Measure("r2", "R2"),
    "mae": Measure("mae", "MAE", lower=True, percent=False),
}


def measure_named(name: str) -> Measure:
    """Return a measure; one of a task of the user's own is a share of 1, and higher is better."""
    return MEASURES.get(name) or Measure(name, name.replace("_", " "))


COSTS = ("macs", "params", "latency_ms")
TUNED = "tuned_"  # a subnet's score after a short distilled training of its own begins with it


def low_is_better(column: str) -> bool:
    """Return whether lower values of what a search optimises are better.

    Args:
        column: a cost, ``kl``, or a measure by its name; with ``tuned_`` before it where the subnet was tuned.
    """
    name = column.removeprefix(TUNED)
    return name == "kl" or name in COSTS or measure_named(name).lower
