"""The teacher's features of the images that statistics and scores are measured on."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from nas_kd.data import Batch
from nas_kd.runtime.device import Runtime
from nas_kd.teacher import LiveSource
from nas_kd.train.stages import Blockwise, StageFeatures

BATCH = 256  # images per teacher forward pass


@torch.no_grad()
def gather(model: Blockwise, teacher: LiveSource, batches: Iterable[Batch], runtime: Runtime) -> list[StageFeatures]:
    """Run the teacher once over some images and keep the features that every stage needs.

    Args:
        model: knows sizes and scales of the stages.
        teacher: a teacher whose taps are chosen, or another network that gives the features of every stage.
        batches: the images.
        runtime: device; scores are measured in full precision.

    Returns:
        Inputs and targets of each stage, all images in one tensor.
    """
    parts: list[list[StageFeatures]] = [[] for _ in model.sizes]
    for batch in batches:
        x = batch.x.to(runtime.device)
        for part, pair in zip(parts, model.features(x, teacher.forward_stages(x)), strict=True):
            part.append(pair)
    return [
        StageFeatures(torch.cat([pair.inputs for pair in part]), torch.cat([pair.targets for pair in part]))
        for part in parts
    ]
