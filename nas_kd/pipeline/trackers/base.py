"""What a tracker is: a logger of Fabric's kind, and how a finished report is handed to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import Logger

from nas_kd.export.formats.base import need_packages


@dataclass(frozen=True)
class Tracker:
    """One way to follow a run.

    Args:
        name: what ``--log`` takes.
        open: returns its logger for a folder, which it may write to, and the run's name; a folder that it has written
            to is gone on with.
        show: gives a logger the report's folder and the report in words.
        packages: modules that it needs; they are in the extra of its name.
    """

    name: str
    open: Callable[[Path, str], Logger]
    show: Callable[[Any, Path, Sequence[str]], None]
    packages: tuple[str, ...] = ()

    def need_packages(self) -> None:
        """Refuse to start without the packages.

        Raises:
            SettingError: one is not installed.
        """
        need_packages("log", self.name, self.packages, self.name)
