"""One CSV file of all values of a run, a row a value; Fabric's own would write a column a value, and no settings."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import Logger

from nas_kd.pipeline.trackers.base import Tracker
from nas_kd.runs.files import CsvLog, atomic_json, plain


class LongCsvLogger(Logger):
    """Appends rows of name, step and value.

    Args:
        folder: where values.csv and settings.json lie.
        name: of the run.
    """

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.run = name
        self.values = CsvLog(folder / "values.csv")

    @property
    def name(self) -> str:
        """The run's name."""
        return self.run

    @property
    def version(self) -> str:
        """One a run."""
        return ""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append the values of a step."""
        self.values.extend([{"name": name, "step": step, "value": value} for name, value in metrics.items()])

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Write the settings."""
        atomic_json(self.folder / "settings.json", plain(dict(params) if isinstance(params, Mapping) else vars(params)))


def no_report(logger: LongCsvLogger, folder: Path, words: Sequence[str]) -> None:
    """Leave the report where it is: a table of numbers has no place for it."""


TRACKER = Tracker("csv", LongCsvLogger, no_report)
