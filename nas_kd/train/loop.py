"""The one training loop: epochs, checkpoints, metrics and resume; what a step does is passed in."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from nas_kd.data import Batch, Split
from nas_kd.errors import SettingError
from nas_kd.runs.progress import Progress
from nas_kd.runs.stage import Stage
from nas_kd.runtime.device import Runtime
from nas_kd.runtime.reduce import reduce_gradients
from nas_kd.runtime.seeds import seeded
from nas_kd.runtime.stop import Stop, Stopped
from nas_kd.train.checkpoint import Checkpoint, Place, batches_from
from nas_kd.train.optim import Rates
from nas_kd.train.skips import Skips
from nas_kd.train.watch import Bad, Watch


class StepInfo(NamedTuple):
    """Where in the training a step is.

    Args:
        epoch: number of the epoch, from 0.
        step: number of the step in its epoch, from 0.
        progress: share of the whole training that is done, 0 to 1.
    """

    epoch: int
    step: int
    progress: float


class Source(Protocol):
    """What is trained on: a `Split`, or what draws other batches of its images."""

    def __len__(self) -> int:
        """Return the number of images."""

    def steps(self, batch_size: int) -> int:
        """Return the number of batches of an epoch."""

    def batches(self, batch_size: int, *, epoch: int, seed: int, rank: int, world: int) -> Iterator[Any]:
        """Go through an epoch; see `Split.batches`."""


Step = Callable[[Batch, StepInfo], Mapping[str, Tensor]]
Describe = Callable[[StepInfo], str]  # what a step trained, for the message of one that went wrong
LOOK_EVERY = 50  # steps after which a GPU is waited for, to see whether a loss was not finite


def check_epochs(field: str, epochs: int, batch_size: int, split: Source, accumulate: int = 1, world: int = 1) -> None:
    """Raise SettingError when there is nothing to train on, or no time to do it.

    Args:
        field: section of the settings.
        epochs: passes over the images.
        batch_size: images per step, of all processes together.
        split: the images.
        accumulate: parts that each process's images of a step are cut into.
        world: number of processes.
    """
    if epochs < 1:
        raise SettingError(f"{field}.epochs", epochs, "an integer of at least 1")
    if not 1 <= batch_size <= len(split):
        expected = f"1 to {len(split)}, the number of training images"
        raise SettingError(f"{field}.batch_size", batch_size, expected)
    if accumulate < 1:
        raise SettingError(f"{field}.accumulate", accumulate, "an integer of at least 1", "use 1")
    parts = world * accumulate
    if parts > 1 and (batch_size % parts or batch_size < 2 * parts):
        words = [f"{world} processes"] * (world > 1) + [f"{field}.accumulate={accumulate}"] * (accumulate > 1)
        near = max(2, round(batch_size / parts)) * parts
        expected = f"a multiple of {parts}, at least {2 * parts}, with {' and '.join(words)}"
        raise SettingError(f"{field}.batch_size", batch_size, expected, f"use {field}.batch_size={near}")


@dataclass(frozen=True)
class Plan:
    """How long a training is, and how fast it goes.

    Args:
        schedule: the learning rate.
        epochs: epochs in all.
        batch_size: images per step, of all processes together.
        accumulate: parts that a process's images of a step go through the step in, one after the other; the gradient
            is their mean.
        clip: largest allowed magnitude of a gradient's entry (AlphaNet clips by value), 0 for no clipping.
        ema: decay of an exponential moving average of the weights, which replaces them in the end; 0: none.
    """

    schedule: Rates
    epochs: int
    batch_size: int
    accumulate: int = 1
    clip: float = 0.0
    ema: float = 0.0


def fit(
    step: Step,
    plan: Plan,
    *,
    name: str,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    split: Source,
    seed: int,
    runtime: Runtime,
    stage: Stage | None = None,
    evaluate: Callable[[], Mapping[str, float]] | None = None,
    after_epoch: Callable[[int], None] | None = None,
    describe: Describe | None = None,
) -> None:
    """Train, and go on where a killed training stopped.

    Every random draw is a function of (seed, name, epoch, step), so a training that was killed and started
    again ends with the same bits as one that was not. A signal that asks to stop, or a time limit, ends it after
    its step, with a checkpoint from the middle of the epoch.

    Several processes train together when the runtime has joined them: each takes its share of every batch,
    and the gradients are averaged before the optimiser's step, so that all hold the same weights. Norms that
    take the batch's statistics then take those of a process's share, or of a part of it. The first process
    alone keeps files.

    Args:
        step: runs forward and backward on a batch and returns named scalars to be averaged over the epoch;
            one of them is ``loss``.
        plan: how long and how fast.
        name: what is trained, for seeds, progress and messages.
        modules: the networks to save, by name.
        optimizer: the optimiser of their parameters.
        split: training images; a `Split` is moved to the runtime's device when it fits there.
        seed: the run's seed.
        runtime: device, precision and processes.
        stage: where metrics and checkpoints go; None keeps nothing.
        evaluate: returns named values at the end of an epoch; every process calls it.
        after_epoch: called with the number of finished epochs, before the checkpoint.
        describe: names what a step of this epoch trained, for the message when a loss was not finite.

    Raises:
        SettingError: there is nothing to train on, or the batch cannot be cut into equal parts.
        FloatingPointError: a value of a step is not finite; the message names it, the step and what the step
            trained. Or weights are not at the end of an epoch. The last checkpoint is one from before. A runtime
            with ``on_nan="skip"`` leaves such steps out, and raises where a whole epoch is made of them.
        Stopped: it was asked to stop, and the state is saved.
        RuntimeError: the processes do not train the same.
    """
    schedule = plan.schedule
    epochs = plan.epochs
    check_epochs(name, epochs, plan.batch_size, split, plan.accumulate, runtime.world)
    kept = stage is not None
    title = name if stage is None else stage.name
    if runtime.rank > 0:
        stage = None
    if isinstance(split, Split):
        split = split.to(runtime.device)
    averaged = {
        key: AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(plan.ema), use_buffers=True)
        for key, module in modules.items()
        if plan.ema > 0.0
    }
    holders: dict[str, nn.Module] = dict(modules) | {f"ema_{key}": module for key, module in averaged.items()}
    state = Checkpoint(stage, holders, optimizer)
    begun = state.take_over(runtime)
    steps = split.steps(plan.batch_size)
    skips = Skips(modules, stage) if runtime.on_nan == "skip" else None
    if stage is not None:
        stage.metrics.cut("epoch", begun.epoch)
    if skips is not None:
        skips.cut(begun.epoch * steps + begun.step)
    run = stage.run if stage is not None else None
    waited = 1 if runtime.device.type == "cpu" else LOOK_EVERY
    watch = Watch(waited)
    own = (runtime.rank,) if runtime.rank else ()  # dropout of its own for each process's images

    def diverged(bad: Bad, at: StepInfo) -> FloatingPointError:
        found = _words(bad, at, steps, describe)
        return FloatingPointError(_advised(found, title, name, schedule.at(_nth(at, steps), steps, epochs), at, kept))

    def check(epoch: int, done: int) -> None:
        """Raise where anything that would be saved is not finite."""
        at = _step_info(epoch, done - 1, steps, epochs)
        if (bad := watch.look()) is not None:
            raise diverged(bad, _step_info(epoch, bad.step, steps, epochs))
        if not all(p.isfinite().all() for module in modules.values() for p in module.parameters()):
            place = f"epoch {epoch + 1}" if done == steps else f"epoch {epoch + 1}, step {done} of {steps}"
            found = f"weights are not finite after {place}"
            rate = schedule.at(_nth(at, steps), steps, epochs)
            raise FloatingPointError(_advised(found, title, name, rate, at, kept))

    def stopped(place: Place) -> Stopped:
        """Save the middle of an epoch."""
        if kept:
            state.save(place)
        saved = f"{title} saved in epoch {place.epoch + 1} after step {place.step} of {steps}" if kept else ""
        return Stopped(stop.requested or signal.SIGTERM, saved)

    with Progress(title, epochs, done=begun.epoch, unit="epochs", run=run) as progress, Stop() as stop:
        for epoch in range(begun.epoch, epochs):
            start = time.perf_counter()
            worked = time.process_time()
            for module in modules.values():
                module.train()
            here = begun if epoch == begun.epoch else Place(epoch)
            sums = dict(here.sums)
            skipped = here.skipped
            watch.start()
            batches = batches_from(
                split, here.step, plan.batch_size, epoch=epoch, seed=seed, rank=runtime.rank, world=runtime.world
            )
            for index, batch in enumerate(batches, here.step):
                seeded(seed, name, epoch, index, *own)  # dropout and stochastic depth draw from global generators
                info = _step_info(epoch, index, steps, epochs)
                for group in optimizer.param_groups:
                    group["lr"] = schedule.at(_nth(info, steps), steps, epochs)
                optimizer.zero_grad(set_to_none=True)
                if skips is not None:
                    skips.hold()
                batch = batch.to(runtime.device)
                shares = batch.parts(plan.accumulate) if plan.accumulate > 1 else [batch]
                parts, asked = _gradients(step, shares, info, optimizer, runtime, stop)
                if skips is not None and (bad := skips.find(index, parts, _parameters(optimizer))) is not None:
                    skips.undo(bad, f"{title}: {_words(bad, info, steps, describe)}", epoch, steps)
                    skipped += 1
                else:
                    if skips is None and (bad := watch.add(index, parts)) is not None:
                        raise diverged(bad, _step_info(epoch, bad.step, steps, epochs))
                    if plan.clip > 0.0:
                        torch.nn.utils.clip_grad_value_(_parameters(optimizer), plan.clip)
                    optimizer.step()
                    for key, module in averaged.items():
                        module.update_parameters(modules[key])
                    for key, value in parts.items():
                        sums[key] = sums[key] + value if key in sums else value
                if _told(stop, asked, _looked(index, steps, waited)):
                    check(epoch, index + 1)
                    raise stopped(Place(epoch, index + 1, skipped, sums))
            check(epoch, steps)
            last = _step_info(epoch, steps - 1, steps, epochs)
            rate = schedule.at(_nth(last, steps), steps, epochs)
            if skipped == steps:
                found = f"all steps of epoch {epoch + 1} were skipped"
                raise FloatingPointError(_advised(found, title, name, rate, last, kept))
            row: dict[str, float] = {"epoch": epoch + 1, "lr": rate}
            row |= {key: float(value) / (steps - skipped) for key, value in sums.items()}
            if evaluate is not None:
                try:
                    with stop.interruptible(runtime.world == 1):  # it may take long, and changes nothing
                        row |= evaluate()
                except Stopped:
                    raise stopped(Place(epoch, steps, skipped, sums)) from None
            if after_epoch is not None:
                after_epoch(epoch + 1)
            if epoch + 1 == epochs:
                for key, module in averaged.items():
                    modules[key].load_state_dict(module.module.state_dict())
            if stage is not None:
                stage.metrics.append(row)
                stage.seconds("epoch", time.perf_counter() - start, time.process_time() - worked)
                state.save(Place(epoch + 1))
            shown = {key: value for key, value in row.items() if key not in ("epoch", "lr")}
            progress.advance(1, **shown, **({"skipped": skipped} if skipped else {}))


def _step_info(epoch: int, step: int, steps: int, epochs: int) -> StepInfo:
    return StepInfo(epoch, step, (epoch * steps + step) / (epochs * steps))


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _nth(info: StepInfo, steps: int) -> int:
    """Return the number of a step in the whole training, from 0."""
    return info.epoch * steps + info.step


def _stepped(step: Step, batch: Batch, info: StepInfo) -> Mapping[str, Tensor]:
    """Take a step, with torch's refusal to normalise a single value said in the settings' words."""
    try:
        return step(batch, info)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        expected = "2 or more for a network with maps of one pixel: a norm would see one value per channel"
        raise SettingError("batch_size", len(batch.y), expected, "use 2 or more, or larger images") from error


def _gradients(
    step: Step,
    batches: Sequence[Batch],
    info: StepInfo,
    optimizer: torch.optim.Optimizer,
    runtime: Runtime,
    stop: Stop,
) -> tuple[dict[str, Tensor], Tensor | None]:
    """Leave the mean gradient of all parts and processes in the parameters.

    Returns:
        The means of the values, and the share of processes that were asked to stop; None for one process.
    """
    sums: dict[str, Tensor] = {}
    for batch in batches:
        for key, value in _stepped(step, batch, info).items():
            sums[key] = sums[key] + value.detach() if key in sums else value.detach()
    if len(batches) > 1:
        torch._foreach_div_([p.grad for p in _parameters(optimizer) if p.grad is not None], len(batches))
        sums = {key: value / len(batches) for key, value in sums.items()}
    if runtime.world == 1:
        return sums, None
    asked = torch.full((), float(stop.requested is not None), device=runtime.device)
    *means, share = reduce_gradients(_parameters(optimizer), [*sums.values(), asked])
    return dict(zip(sums, means, strict=True)), share


def _told(stop: Stop, asked: Tensor | None, look: bool) -> bool:
    """Tell whether any process was asked to stop; a GPU is waited for only where it is looked at anyway."""
    return stop.requested is not None if asked is None else look and float(asked) > 0.0


def _looked(index: int, steps: int, waited: int) -> bool:
    """Tell whether the device is waited for after a step: every ``waited`` steps, and after the epoch's last."""
    return (index + 1) % waited == 0 or index + 1 == steps


def _words(bad: Bad, at: StepInfo, steps: int, describe: Describe | None) -> str:
    """Say what went wrong, and where."""
    trained = f" ({describe(at)})" if describe is not None else ""
    return f"{bad.key} is {bad.value} in epoch {at.epoch + 1}, step {at.step + 1} of {steps}{trained}"


def _advised(found: str, title: str, name: str, rate: float, at: StepInfo, kept: bool) -> str:
    saved = f"; the checkpoint of epoch {at.epoch} is kept" if kept and at.epoch else ""
    return f"{title}: {found}{saved}; lower {name}.lr (now {rate:.3g}), or skip such steps with on_nan=skip"
