"""Evaluation of subnets of a supernet, each at its own input size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nas_kd.data import Data
from nas_kd.distill import Task
from nas_kd.nn import NormValues, at_resolution, inputs
from nas_kd.space import Arch
from nas_kd.supernet import Supernet, calibrate
from nas_kd.train.sandwich import Images

IMAGES = 1024  # for calibration and accuracy of subnets during the training of a supernet


def calibrated(
    net: Supernet, archs: Sequence[Arch], data: Data, images: int = IMAGES, batch_size: int = 512
) -> list[NormValues]:
    """Calibrate archs of any input sizes on training images; return one value per arch."""
    device = next(net.parameters()).device
    norms: dict[Arch, NormValues] = {}
    for resolution in {arch.resolution: None for arch in archs}:
        group = [arch for arch in archs if arch.resolution == resolution]
        batches = (
            at_resolution(inputs.moved(batch.x, device), resolution)
            for batch in data.train.clean(batch_size, limit=images)
        )
        norms |= zip(group, calibrate(net, batches, group), strict=True)
    return [norms[arch] for arch in archs]


@torch.no_grad()
def evaluate_archs(
    net: Supernet,
    archs: Sequence[Arch],
    data: Data,
    task: Task,
    *,
    images: int = IMAGES,
    calibration: int = IMAGES,
    batch_size: int = 512,
) -> list[float]:
    """Evaluate subnets on the rate split after calibration on training images, each at its own input size.

    Args:
        images: number of images of the rate split.
        calibration: number of training images for the norms.

    Returns:
        The task's measure of each arch.
    """
    norms = calibrated(net, archs, data, calibration, batch_size)
    device = next(net.parameters()).device
    training = net.training
    net.eval()
    logits: list[list[Tensor]] = [[] for _ in archs]
    labels = []
    for batch in (batch.to(device) for batch in data.rate.clean(batch_size, limit=images)):
        labels.append(batch.y)
        sized = Images(batch.x)
        for index, (arch, norm) in enumerate(zip(archs, norms, strict=True)):
            logits[index].append(net(sized.at(arch.resolution), arch, norm))
    net.train(training)
    return [task.metric(torch.cat(parts), torch.cat(labels)) for parts in logits]
