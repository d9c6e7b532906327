"""Blockwise supervision: each stage maps the teacher's previous feature to the teacher's next one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from nas_kd.data import Batch, Data
from nas_kd.runs.stage import Stage as RunStage
from nas_kd.runtime.device import Runtime, place
from nas_kd.space.paths import SAMPLINGS, Path, entries, fitting, path_count
from nas_kd.teacher import TargetSource
from nas_kd.train.blockwise_config import BlockwiseConfig
from nas_kd.train.loop import StepInfo, fit
from nas_kd.train.mixed import MixedInputs
from nas_kd.train.optim import Schedule, adamw
from nas_kd.train.plan import Plan
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

    Without mixing, the stages are independent: trained alone or together, their weights are the same.

    Args:
        source: provides the teacher's features, with its taps chosen.
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
    chosen_stages = range(len(space.stages)) if only is None else sorted(only)
    parts = {f"stage_{index + 1}": model.part(index) for index in chosen_stages}
    steps = data.train.steps(config.batch_size)

    def drawn(info: StepInfo, index: int) -> list[Path]:
        described = space.stages[index]
        number = info.epoch * steps + info.step
        count = path_count(described, config.paths)
        found = draw(described, entries(space, index), count, number, seed, "blockwise", index)
        return [fitting(space, index, path) for path in found]

    mixed = MixedInputs(model, config.mix, drawn, seed)

    def step(batch: Batch, info: StepInfo) -> Mapping[str, Tensor]:
        x = batch.x.to(runtime.device)
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
        each = ("; ".join(path.candidate.label for path in drawn(info, index)) for index in chosen_stages)
        return ", ".join(f"stage {index + 1}: {labels}" for index, labels in zip(chosen_stages, each, strict=True))

    fit(
        step,
        Plan(Schedule(config.lr), config.epochs, config.batch_size),
        name="blockwise",
        modules=parts,
        optimizer=adamw(list(parts.values()), weight_decay=config.weight_decay),
        split=data.train,
        seed=seed,
        runtime=runtime,
        stage=stage,
        after_epoch=after_epoch,
        describe=describe,
    )
