"""Weights & Biases; with ``WANDB_MODE=offline`` nothing is sent, and ``wandb sync`` does so later.

Its files are in ``wandb/`` beside the run folder, or in ``WANDB_DIR``: they hold links, which no run folder has.
"""

from __future__ import annotations

import hashlib
import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import Logger

from nas_kd.pipeline.trackers.base import Tracker


class WandbLogger(Logger):
    """A run of W&B whose metrics have the steps of their own trainings.

    Args:
        folder: in the run folder, RUN/track/wandb.
        name: of the run.
    """

    def __init__(self, folder: Path, name: str) -> None:
        import wandb

        known = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]  # the same folder goes on
        self.run: Any = wandb.init(
            project="nas_kd",
            name=name,
            id=known,
            resume="allow",
            dir=os.environ.get("WANDB_DIR") or str(folder.resolve().parents[2]),
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._stages: set[str] = set()

    @property
    def name(self) -> str:
        """The project."""
        return "nas_kd"

    @property
    def version(self) -> str:
        """The run's identifier."""
        return str(self.run.id)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record values of one training, whose names begin with its folder; ``step`` counts there alone."""
        stage = next(iter(metrics)).rpartition("/")[0]
        if stage not in self._stages:
            self.run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
            self._stages.add(stage)
        self.run.log({**metrics, f"{stage}/step": step})

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Record the settings."""
        self.run.config.update(dict(params) if isinstance(params, Mapping) else vars(params), allow_val_change=True)

    def finalize(self, status: str) -> None:
        """End the run."""
        self.run.finish(exit_code=0 if status == "success" else 1)


def show_figures(logger: WandbLogger, folder: Path, words: Sequence[str]) -> None:
    """Record the figures, and the report itself as an interactive page."""
    import wandb

    figures = {
        f"report/{path.stem}": wandb.Html(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.svg"))
    }
    page = wandb.Html((folder / "report.html").read_text(encoding="utf-8"), inject=False)
    logger.run.log({**figures, "report/report": page})
    logger.run.summary["report/words"] = "\n".join(words)


TRACKER = Tracker("wandb", WandbLogger, show_figures, ("wandb",))
