"""The one training loop: epochs, checkpoints, metrics and resume; what a step does is passed in."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from nas_kd.data import Batch, Split
from nas_kd.errors import SettingError
from nas_kd.run import Stage
from nas_kd.runtime import Progress, Runtime, seeded
from nas_kd.train.optim import Rates


class Moment(NamedTuple):
    """Where in the training a step is.

    Args:
        epoch: number of the epoch, from 0.
        step: number of the step in its epoch, from 0.
        progress: share of the whole training that is done, 0 to 1.
    """

    epoch: int
    step: int
    progress: float


Step = Callable[[Batch, Moment], Mapping[str, Tensor]]


def check_epochs(field: str, epochs: int, batch_size: int, split: Split) -> None:
    """Raise SettingError when there is nothing to train on, or no time to do it."""
    if epochs < 1:
        raise SettingError(f"{field}.epochs", epochs, "an integer of at least 1")
    if not 2 <= batch_size <= len(split):
        legal = f"2 to {len(split)}, the number of training images"
        raise SettingError(f"{field}.batch_size", batch_size, legal)


def fit(
    step: Step, *, name: str, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer,
    schedule: Rates, split: Split, batch_size: int, epochs: int, seed: int, runtime: Runtime,
    stage: Stage | None = None, evaluate: Callable[[], Mapping[str, float]] | None = None,
    clip: float = 0.0, ema: float = 0.0, checkpoint: bool = True,
    after_epoch: Callable[[int], None] | None = None,
) -> None:  # fmt: skip
    """Train, and go on where a killed training stopped.

    Every random draw is a function of (seed, name, epoch, step), so a training that was killed and started
    again ends with the same bits as one that was not.

    Args:
        step: runs forward and backward on a batch and returns named scalars to be averaged over the epoch;
            one of them is ``loss``.
        name: what is trained, for seeds, progress and messages.
        modules: the networks to save, by name.
        optimizer: the optimiser of their parameters.
        schedule: the learning rate.
        split: training images.
        batch_size: images a step.
        epochs: epochs in all.
        seed: the run's seed.
        runtime: device and precision.
        stage: where metrics and checkpoints go; None keeps nothing.
        evaluate: returns named values at the end of an epoch.
        clip: largest allowed magnitude of a gradient's entry (AlphaNet clips by value), 0 for no clipping.
        ema: decay of an exponential moving average of the weights, which replaces them in the end; 0: none.
        checkpoint: whether to save at the end of every epoch.
        after_epoch: called with the number of finished epochs, before the checkpoint.

    Raises:
        FloatingPointError: a value of an epoch is not finite; its name is in the message.
    """
    averaged = {
        key: AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(ema), use_buffers=True)
        for key, module in modules.items()
        if ema > 0.0
    }
    holders: dict[str, nn.Module] = dict(modules) | {f"ema_{key}": module for key, module in averaged.items()}
    begun = 0
    if stage is not None and (state := stage.load()) is not None:
        for key, module in holders.items():
            module.load_state_dict(state[key])
        optimizer.load_state_dict(state["optimizer"])
        begun = int(state["epoch"])
    if stage is not None:
        stage.metrics.cut("epoch", begun)
    steps = split.steps(batch_size)
    run = stage.run if stage is not None else None
    with Progress(stage.name if stage else name, epochs, done=begun, unit="epochs", run=run) as progress:
        for epoch in range(begun, epochs):
            start = time.perf_counter()
            for module in modules.values():
                module.train()
            sums: dict[str, Tensor] = {}
            for index, batch in enumerate(split.batches(batch_size, epoch=epoch, seed=seed)):
                seeded(seed, name, epoch, index)  # dropout and stochastic depth draw from the global generators
                rate = schedule.at(epoch * steps + index, steps, epochs)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                optimizer.zero_grad(set_to_none=True)
                batch = batch.to(runtime.device)
                parts = step(batch, Moment(epoch, index, (epoch * steps + index) / (epochs * steps)))
                if clip > 0.0:
                    torch.nn.utils.clip_grad_value_((p for g in optimizer.param_groups for p in g["params"]), clip)
                optimizer.step()
                for key, module in averaged.items():
                    module.update_parameters(modules[key])
                for key, value in parts.items():
                    sums[key] = sums[key] + value.detach() if key in sums else value.detach()
            row: dict[str, float] = {"epoch": epoch + 1, "lr": rate}
            row |= {key: float(value) / steps for key, value in sums.items()}
            _finite(name, row)
            if evaluate is not None:
                row |= evaluate()
            if after_epoch is not None:
                after_epoch(epoch + 1)
            if epoch + 1 == epochs:
                for key, module in averaged.items():
                    modules[key].load_state_dict(module.module.state_dict())
            if stage is not None:
                stage.metrics.append(row)
                stage.seconds("epoch", time.perf_counter() - start)
                if checkpoint:
                    state = {key: module.state_dict() for key, module in holders.items()}
                    stage.save(state | {"optimizer": optimizer.state_dict(), "epoch": epoch + 1})
            progress.advance(1, **{key: value for key, value in row.items() if key not in ("epoch", "lr")})


def _finite(name: str, row: Mapping[str, float]) -> None:
    for key, value in row.items():
        if not math.isfinite(value):
            raise FloatingPointError(
                f"{name}: {key} is {value} in epoch {row['epoch']:.0f}; lower {name}.lr (now {row['lr']:.3g})"
            )
