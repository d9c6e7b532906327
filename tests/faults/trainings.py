"""A training of a second, for tests that disturb it: in this process or, by name, in a worker."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd.data import Batch, Data, load_data
from nas_kd.runs.run import Run
from nas_kd.runs.stage import Stage
from nas_kd.runtime.device import Runtime
from nas_kd.train.loop import StepInfo, fit
from nas_kd.train.optim import Schedule, sgd
from nas_kd.train.plan import Plan

EPOCHS, BATCH, STEPS = 3, 16, 5


def few_images() -> Data:
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(120) % 3
    x = torch.randint(0, 128, (120, 1, 8, 8), dtype=torch.uint8, generator=generator)
    x[:, :, :4] += (y * 50).to(torch.uint8)[:, None, None, None]
    return load_data((x, y), rate=6, select=6)


def make_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(24, 3),
    )


def stage_in(folder: Path) -> Stage:
    return Run(folder).stage("supernet", {"seed": 5})


def train(
    data: Data,
    stage: Stage | None,
    before: Callable[[StepInfo], object] = lambda info: None,
    spoil: Callable[[StepInfo, Batch, Tensor], Tensor] = lambda info, batch, loss: loss,
    **changed: Any,
) -> nn.Module:
    """Train with dropout, statistics, an average of the weights, clipping and accumulation.

    Args:
        data: the images.
        stage: where it is kept.
        before: called at the beginning of every step, or part of one.
        spoil: what becomes of the loss before its backward pass.
        changed: other arguments of ``fit``.
    """
    model = make_model()

    def step(batch: Batch, info: StepInfo) -> dict[str, Tensor]:
        before(info)
        loss = spoil(info, batch, F.cross_entropy(model(batch.x), batch.y))
        loss.backward()
        return {"loss": loss.detach(), "first": batch.x.mean()}

    fit_model(step, model, data, stage, **{"epochs": EPOCHS, "accumulate": 2} | changed)
    return model


def fit_model(
    step: Callable[[Batch, StepInfo], dict[str, Tensor]],
    model: nn.Module,
    data: Data,
    stage: Stage | None,
    **changed: Any,
) -> None:
    """Train a model of `make_model` with an average of the weights and clipping.

    Args:
        step: of the training.
        changed: ``epochs``, and what else differs.
    """
    settings: dict[str, Any] = {
        "name": "supernet",
        "modules": {"net": model},
        "optimizer": sgd([model]),
        "schedule": Schedule(0.1, 1.0),
        "split": data.train,
        "batch_size": BATCH,
        "seed": 5,
        "runtime": Runtime("cpu"),
        "stage": stage,
        "evaluate": lambda: {"weight": float(model[6].weight.detach().square().sum())},  # type: ignore[index]
        "clip": 0.05,
        "ema": 0.9,
    }
    given = settings | changed
    plan = Plan(**{entry.name: given.pop(entry.name) for entry in fields(Plan) if entry.name in given})
    fit(step, plan, **given)


def slow_job(folder: str) -> None:
    """Train so slowly that whoever waits for it stops it; for a worker process."""

    def before(info: StepInfo) -> None:
        Path(folder, "begun").touch()
        time.sleep(0.2)

    train(few_images(), stage_in(Path(folder)), before, epochs=1000)


def send(number: int, times: int = 1) -> None:
    """Send this process a signal."""
    for _ in range(times):
        os.kill(os.getpid(), number)


INTERRUPT, TERMINATE = signal.SIGINT, signal.SIGTERM
