"""The training loop: epochs, checkpoints, metrics and resuming; the step is an argument."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

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
from nas_kd.train.checkpoint import Checkpoint, Position, batches_from
from nas_kd.train.plan import Plan, Source, check_epochs
from nas_kd.train.skips import Skips
from nas_kd.train.watch import NonFinite, Watch


class StepInfo(NamedTuple):
    """The position of a step in the training.

    Args:
        epoch: index of the epoch.
        step: index of the step in its epoch.
        progress: fraction of the whole training that is done, 0 to 1.
    """

    epoch: int
    step: int
    progress: float


Step = Callable[[Batch, StepInfo], Mapping[str, Tensor]]
Describe = Callable[[StepInfo], str]  # describes what a step trained, for error messages
SYNC_EVERY = 50  # steps between checks for non-finite losses on a GPU, which synchronise with it


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
    """Train, or resume a killed training from its last checkpoint.

    Every random draw is a function of (seed, name, epoch, step), so a resumed training ends with bitwise the same
    weights as an uninterrupted one. A signal or a time limit ends it after the current step, with a checkpoint in
    the middle of the epoch.

    Several processes train together if the runtime has joined them: each takes its share of every batch,
    and gradients are averaged before the optimiser's step, so that all have the same weights. Norms that use
    batch statistics then use those of a process's share, or of a part of it. Only the first process writes
    files.

    Args:
        step: runs forward and backward on a batch and returns named scalars to be averaged over the epoch;
            one of them is ``loss``.
        name: for seeds, progress and messages.
        modules: the networks to save, by name.
        split: training images; a `Split` is moved to the runtime's device if it fits.
        stage: where metrics and checkpoints go; None stores nothing.
        evaluate: returns named values at the end of an epoch; every process calls it.
        after_epoch: called with the number of finished epochs, before the checkpoint.
        describe: describes what a step of this epoch trained, for the error of a non-finite loss.

    Raises:
        SettingError: there are no epochs or images, or the batch cannot be split into equal parts.
        FloatingPointError: a value of a step, or a weight at the end of an epoch, is not finite; the last checkpoint is
            from before. With ``on_nan="skip"`` such steps are skipped, and it is raised if a whole epoch was.
        Stopped: a signal or the time limit; the state is saved.
        RuntimeError: the processes train different weights.
    """
    schedule = plan.schedule
    epochs = plan.epochs
    check_epochs(name, epochs, plan.batch_size, split, plan.accumulate, runtime.world)
    setting = plan.lr or f"{name}.lr"
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
    resumed = state.restore(runtime)
    steps = split.steps(plan.batch_size)
    skips = Skips(modules, stage) if runtime.on_nan == "skip" else None
    if stage is not None:
        stage.metrics.cut("epoch", resumed.epoch)
    if skips is not None:
        skips.cut(resumed.epoch * steps + resumed.step)
    run = stage.run if stage is not None else None
    sync_every = 1 if runtime.device.type == "cpu" else SYNC_EVERY
    watch = Watch(sync_every)
    own = (runtime.rank,) if runtime.rank else ()  # each process draws its own dropout masks

    def diverged(nonfinite: NonFinite, at: StepInfo) -> FloatingPointError:
        found = _describe_nonfinite(nonfinite, at, steps, describe)
        cure = _cure(setting, schedule.at(_global_step(at, steps), steps, epochs), at, skips is not None)
        return FloatingPointError(_diverged_message(found, title, cure, at, kept))

    def check(epoch: int, done: int) -> None:
        """Raise if anything that would be saved is not finite."""
        at = _step_info(epoch, done - 1, steps, epochs)
        if (nonfinite := watch.check()) is not None:
            raise diverged(nonfinite, _step_info(epoch, nonfinite.step, steps, epochs))
        if not all(p.isfinite().all() for module in modules.values() for p in module.parameters()):
            place = f"epoch {epoch + 1}" if done == steps else f"epoch {epoch + 1}, step {done} of {steps}"
            found = f"weights are not finite after {place}"
            cure = _cure(setting, schedule.at(_global_step(at, steps), steps, epochs), None, skips is not None)
            raise FloatingPointError(_diverged_message(found, title, cure, at, kept))

    def stopped(place: Position) -> Stopped:
        """Save a checkpoint in the middle of an epoch."""
        if kept:
            state.save(place)
        saved = f"{title} saved in epoch {place.epoch + 1} after step {place.step} of {steps}" if kept else ""
        return Stopped(stop.requested or signal.SIGTERM, saved)

    with Progress(title, epochs, done=resumed.epoch, unit="epochs", run=run) as progress, Stop() as stop:
        for epoch in range(resumed.epoch, epochs):
            start = time.perf_counter()
            cpu_start = time.process_time()
            for module in modules.values():
                module.train()
            here = resumed if epoch == resumed.epoch else Position(epoch)
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
                    group["lr"] = schedule.at(_global_step(info, steps), steps, epochs)
                optimizer.zero_grad(set_to_none=True)
                if skips is not None:
                    skips.hold()
                batch = batch.to(runtime.device)
                shares = batch.parts(plan.accumulate) if plan.accumulate > 1 else [batch]
                parts, asked = _gradients(step, shares, info, optimizer, runtime, stop)
                if skips is not None and (nonfinite := skips.find(index, parts, _parameters(optimizer))) is not None:
                    skips.undo(
                        nonfinite, f"{title}: {_describe_nonfinite(nonfinite, info, steps, describe)}", epoch, steps
                    )
                    skipped += 1
                else:
                    if skips is None and (nonfinite := watch.add(index, parts)) is not None:
                        raise diverged(nonfinite, _step_info(epoch, nonfinite.step, steps, epochs))
                    if plan.clip > 0.0:
                        torch.nn.utils.clip_grad_value_(_parameters(optimizer), plan.clip)
                    optimizer.step()
                    for key, module in averaged.items():
                        module.update_parameters(modules[key])
                    for key, value in parts.items():
                        sums[key] = sums[key] + value if key in sums else value
                progress.within(index + 1, steps)
                if _should_stop(stop, asked, _synchronises(index, steps, sync_every)):
                    check(epoch, index + 1)
                    raise stopped(Position(epoch, index + 1, skipped, sums))
            check(epoch, steps)
            last = _step_info(epoch, steps - 1, steps, epochs)
            rate = schedule.at(_global_step(last, steps), steps, epochs)
            if skipped == steps:
                found = f"all steps of epoch {epoch + 1} were skipped"
                raise FloatingPointError(_diverged_message(found, title, _cure(setting, rate, None, True), last, kept))
            row: dict[str, float] = {"epoch": epoch + 1, "lr": rate}
            row |= {key: float(value) / (steps - skipped) for key, value in sums.items()}
            if evaluate is not None:
                try:
                    with stop.interruptible(runtime.world == 1):  # it may take long, and changes no state
                        row |= evaluate()
                except Stopped:
                    raise stopped(Position(epoch, steps, skipped, sums)) from None
            if after_epoch is not None:
                after_epoch(epoch + 1)
            if epoch + 1 == epochs:
                for key, module in averaged.items():
                    modules[key].load_state_dict(module.module.state_dict())
            if stage is not None:
                stage.metrics.append(row)
                stage.seconds("epoch", time.perf_counter() - start, time.process_time() - cpu_start)
                state.save(Position(epoch + 1))
            shown = {key: value for key, value in row.items() if key not in ("epoch", "lr")}
            progress.advance(1, **shown, **({"skipped": skipped} if skipped else {}))


def _step_info(epoch: int, step: int, steps: int, epochs: int) -> StepInfo:
    return StepInfo(epoch, step, (epoch * steps + step) / (epochs * steps))


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _global_step(info: StepInfo, steps: int) -> int:
    """Return the index of a step in the whole training."""
    return info.epoch * steps + info.step


def _stepped(step: Step, batch: Batch, info: StepInfo) -> Mapping[str, Tensor]:
    """Run a step, and replace torch's error on normalising a single value by one with the setting."""
    try:
        return step(batch, info)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        expected = "2 or more for a network with maps of one pixel: a norm would get one value per channel"
        raise SettingError("batch_size", len(batch.y), expected, "use 2 or more, or larger images") from error


def _gradients(
    step: Step,
    batches: Sequence[Batch],
    info: StepInfo,
    optimizer: torch.optim.Optimizer,
    runtime: Runtime,
    stop: Stop,
) -> tuple[dict[str, Tensor], Tensor | None]:
    """Accumulate the mean gradient of all parts and processes in the parameters.

    Returns:
        The means of the values, and the fraction of processes that were asked to stop; None for one process.
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


def _should_stop(stop: Stop, asked: Tensor | None, synchronise: bool) -> bool:
    """Return whether any process was asked to stop; read from a GPU only at steps that synchronise anyway."""
    return stop.requested is not None if asked is None else synchronise and float(asked) > 0.0


def _synchronises(index: int, steps: int, sync_every: int) -> bool:
    """Return whether to synchronise after a step: every ``sync_every`` steps, and after the epoch's last."""
    return (index + 1) % sync_every == 0 or index + 1 == steps


def _describe_nonfinite(nonfinite: NonFinite, at: StepInfo, steps: int, describe: Describe | None) -> str:
    """Describe a non-finite value and its step."""
    trained = f" ({describe(at)})" if describe is not None else ""
    return f"{nonfinite.key} is {nonfinite.value} in epoch {at.epoch + 1}, step {at.step + 1} of {steps}{trained}"


def _cure(setting: str, rate: float, at: StepInfo | None, skipping: bool) -> str:
    """Say what mends a value that is not finite: in the first step the learning rate has had no effect yet.

    Args:
        setting: that of the learning rate.
        at: the step whose loss it was; None where weights are not finite after one.
    """
    if at is not None and not at.epoch and not at.step:
        return "no weight was changed before: look at the images, the labels, what the teacher answers, and the weights"
    return f"lower {setting} (now {rate:.3g}){'' if skipping else ', or skip such steps with on_nan=skip'}"


def _diverged_message(found: str, title: str, cure: str, at: StepInfo, kept: bool) -> str:
    saved = f"; the checkpoint of epoch {at.epoch} is kept" if kept and at.epoch else ""
    return f"{title}: {found}{saved}; {cure}"
