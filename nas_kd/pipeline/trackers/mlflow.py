"""MLflow (mlflow-skinny is enough), at ``MLFLOW_TRACKING_URI`` or in a database file in the run folder."""

from __future__ import annotations

import os
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import Logger

from nas_kd.pipeline.trackers.base import Tracker

RUN = "run_id"  # file with what the server calls the run
LONGEST = 500  # characters of a setting


class MLFlowLogger(Logger):
    """A run of MLflow.

    Args:
        folder: where it keeps its files.
        name: of the run.
    """

    def __init__(self, folder: Path, name: str) -> None:
        from mlflow import MlflowClient

        folder.mkdir(parents=True, exist_ok=True)
        own = f"sqlite:///{(folder / 'mlflow.db').resolve()}"
        given = os.environ.get("MLFLOW_TRACKING_URI")  # an empty one is none
        self.client = MlflowClient(given or own)
        known = folder / RUN
        if known.exists():
            self.run_id = known.read_text(encoding="utf-8").strip()
            self.client.update_run(self.run_id, "RUNNING")
        else:
            found = self.client.get_experiment_by_name("nas_kd")
            files = None if given else (folder / "files").resolve().as_uri()
            experiment = self.client.create_experiment("nas_kd", files) if found is None else found.experiment_id
            self.run_id = self.client.create_run(experiment, run_name=name).info.run_id
            known.write_text(f"{self.run_id}\n", encoding="utf-8")

    @property
    def name(self) -> str:
        """The experiment."""
        return "nas_kd"

    @property
    def version(self) -> str:
        """The run's identifier."""
        return self.run_id

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record values at a step of their own training."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.client.log_batch(self.run_id, [Metric(name, value, now, step or 0) for name, value in metrics.items()])

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Record the settings as tags, which may change when a run goes on."""
        for name, value in (params if isinstance(params, Mapping) else vars(params)).items():
            self.client.set_tag(self.run_id, name, str(value)[:LONGEST])

    def finalize(self, status: str) -> None:
        """End the run."""
        self.client.set_terminated(self.run_id, "FINISHED" if status == "success" else "FAILED")


def keep_files(logger: MLFlowLogger, folder: Path, words: Sequence[str]) -> None:
    """Store the report with its figures and tables."""
    logger.client.log_artifacts(logger.run_id, str(folder), "report")
    logger.client.log_text(logger.run_id, "\n".join(words), "report/words.txt")


TRACKER = Tracker("mlflow", MLFlowLogger, keep_files, ("mlflow",))
