"""Blockwise supervision: each stage maps the teacher's previous feature to the teacher's next one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from nas_kd.data import Batch, Data
from nas_kd.distill.sampling import PairedBatch, TwoViews
from nas_kd.runs.stage import Stage as RunStage
from nas_kd.runtime.device import Runtime, place
from nas_kd.space.paths import SAMPLINGS, Path, entries, fitting, path_count
from nas_kd.teacher import TargetSource
from nas_kd.train.blockwise_config import BlockwiseConfig
from nas_kd.train.loop import StepInfo, fit
from nas_kd.train.mixed import MixedInputs
from nas_kd.train.optim import Schedule, adamw
from nas_kd.train.plan import Plan
from nas_kd.train.stage_average import NAME, ApartCosine, OneByOne, StageAverage, turn_of
from nas_kd.train.stages import Blockwise


def train_blockwise(
    model: Blockwise,
    source: TargetSource,
    data: Data,
    config: BlockwiseConfig,
    *,
    seed: int = 0,
    only: Sequence[int] | None = None,
    runtime: Runtime,
    stage: RunStage | None = None,
    after_epoch: Callable[[int], None] | None = None,
) -> None:
    """Train stages and adapters in place, with one teacher forward pass per batch.

    Without mixing, the stages are independent: trained alone or together, their weights are the same. Where their own
    average teaches, one learns after the other, each with a learning rate that falls to 0.

    Args:
        source: provides the teacher's features, with its taps chosen; or the average of the stages.
        data: its ``train`` images are used, without labels.
        seed: seed of order, augmentation and paths.
        only: indices of the stages to train; None for all.
        stage: where metrics and checkpoints go, or None.
        after_epoch: called with the number of finished epochs.
    """
    space = model.space
    place(model, runtime)
    for part in (model.stem, model.stages):
        part.requires_grad_(config.train)
    draw = SAMPLINGS[config.sampling]
    chosen_stages = list(range(len(space.stages))) if only is None else sorted(only)
    own = source if isinstance(source, StageAverage) else None
    distance = ApartCosine(config.spread)
    parts = {f"stage_{index + 1}": model.part(index) for index in chosen_stages}
    steps = data.train.steps(config.batch_size)

    def drawn(info: StepInfo, index: int) -> list[Path]:
        described = space.stages[index]
        number = info.epoch * steps + info.step
        count = path_count(described, config.paths)
        found = draw(described, entries(space, index), count, number, seed, "blockwise", index)
        return [fitting(space, index, path) for path in found]

    mixed = MixedInputs(model, config.mix, drawn, seed)

    def turn(info: StepInfo) -> int:
        return turn_of(info.epoch * steps + info.step, config.epochs * steps, chosen_stages)

    def alone(own: StageAverage, batch: Batch, info: StepInfo, index: int) -> Mapping[str, Tensor]:
        """Let one stage learn from the average's answers to another view."""
        assert isinstance(batch, PairedBatch)
        x, other = (images.to(runtime.device) for images in (batch.x, batch.other))
        own.update(index)
        with runtime.autocast():
            entering = model.pair(index, x, own.forward_stages(x))
            target = model.pair(index, other, own.forward_stages(other)).targets
            pair = entering._replace(targets=target)
            loss = model.loss(index, pair, drawn(info, index), distance=distance)
        loss.backward()
        return {"loss": loss.detach()}

    def step(batch: Batch, info: StepInfo) -> Mapping[str, Tensor]:
        x = batch.x.to(runtime.device)
        if own is not None:
            return alone(own, batch, info, turn(info))
        with runtime.autocast():
            pairs = model.features(x, source.features(batch))
        losses = {}
        for index in chosen_stages:
            with runtime.autocast():
                chosen = drawn(info, index)
                entered = mixed.entered(pairs, info, index, [path.entry for path in chosen])
                loss = model.loss(index, pairs[index], chosen, entered)
            loss.backward()  # right away, so that only one stage's graph is in memory
            losses[f"loss_stage_{index + 1}"] = loss.detach()
        # the stages first, so that a NaN is reported with its stage
        return losses | {"loss": torch.stack(list(losses.values())).sum()}

    def describe(info: StepInfo) -> str:
        which = chosen_stages if own is None else [turn(info)]
        each = ("; ".join(path.candidate.label for path in drawn(info, index)) for index in which)
        return ", ".join(f"stage {index + 1}: {labels}" for index, labels in zip(which, each, strict=True))

    rates = Schedule(config.lr) if own is None else OneByOne(Schedule(config.lr), len(chosen_stages))
    fit(
        step,
        Plan(rates, config.epochs, config.batch_size),
        name="blockwise",
        modules=parts if own is None else parts | {NAME: own},
        optimizer=adamw(list(parts.values()), weight_decay=config.weight_decay),
        split=data.train if own is None else TwoViews(data.train),
        seed=seed,
        runtime=runtime,
        stage=stage,
        after_epoch=after_epoch,
        describe=describe,
    )
