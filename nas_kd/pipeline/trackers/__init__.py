"""Trackers of experiments by name: what ``--log`` takes."""

from nas_kd.pipeline.trackers import csv, mlflow, tensorboard, wandb
from nas_kd.pipeline.trackers.base import Tracker

TRACKERS: dict[str, Tracker] = {
    "csv": csv.TRACKER,
    "mlflow": mlflow.TRACKER,
    "tensorboard": tensorboard.TRACKER,
    "wandb": wandb.TRACKER,
}
