"""TensorBoard's event files, by Lightning Fabric's logger."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning_fabric.loggers.tensorboard import TensorBoardLogger

from nas_kd.pipeline.trackers.base import Tracker


def open_logger(folder: Path, name: str) -> TensorBoardLogger:
    """Return a logger that writes into a folder; ``tensorboard --logdir`` names the run by it."""
    return TensorBoardLogger(folder.parent, name=folder.name, version="")


def show_words(logger: TensorBoardLogger, folder: Path, words: Sequence[str]) -> None:
    """Write what the report says; TensorBoard shows no SVG."""
    logger.experiment.add_text("report", "\n\n".join(words))


TRACKER = Tracker("tensorboard", open_logger, show_words, ("tensorboard",))
