"""Batch-norm statistics of chosen architectures, pooled exactly over batches and returned as values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, overload

import torch
from torch import Tensor, nn

from nas_kd.errors import SettingError
from nas_kd.nn.norm import NormValues, Recorder
from nas_kd.space.arch import Arch
from nas_kd.supernet.supernet import Supernet


def _images(batch: Any) -> Tensor:
    return batch if isinstance(batch, Tensor) else batch[0]


@overload
def calibrate(net: Supernet, batches: Iterable[Any], archs: Sequence[Arch]) -> list[NormValues]: ...
@overload
def calibrate(net: nn.Module, batches: Iterable[Any], archs: None = None) -> None: ...


@torch.no_grad()
def calibrate(
    net: nn.Module, batches: Iterable[Any], archs: Sequence[Arch] | None = None
) -> list[NormValues] | None:
    """Measure the statistics a network's batch norms need in evaluation mode.

    Training leaves no usable running statistics behind in shared weights, so they are measured on training
    images (never on test images) without labels. Each norm's input is pooled over all batches by the law of
    total variance, while the layers before it normalise by their batch.

    Args:
        net: a supernet, or any plain module.
        batches: image tensors (B, C, H, W), or tuples that begin with one.
        archs: the archs of a supernet to measure, all in the one pass over the batches.

    Returns:
        For a supernet one value an arch, to be passed as ``norm``; nothing of the supernet is changed. For a
        plain module None: its running statistics are set in place.

    Raises:
        SettingError: there are no batches, or archs are missing (or given for a plain module).
    """
    if isinstance(net, Supernet):
        if not archs:
            raise SettingError("archs", archs, "at least one arch of the supernet's space", "pass archs=[arch, ...]")
        return _calibrate_supernet(net, batches, archs)
    if archs is not None:
        raise SettingError("archs", archs, "None for a plain module", "leave it out")
    _calibrate_module(net, batches)
    return None


def _calibrate_supernet(net: Supernet, batches: Iterable[Any], archs: Sequence[Arch]) -> list[NormValues]:
    recorders = [Recorder() for _ in archs]
    seen = 0
    for batch in batches:
        images = _images(batch)
        seen += len(images)
        for arch, recorder in zip(archs, recorders, strict=True):
            net.forward_stages(images, arch, recorder)
    _some(seen)
    return [recorder.values() for recorder in recorders]


def _calibrate_module(net: nn.Module, batches: Iterable[Any]) -> None:
    norms = {
        name: module
        for name, module in net.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
    }
    recorder = Recorder()
    modes = {module: module.training for module in net.modules()}  # parts may be frozen in another mode
    momenta = {module: module.momentum for module in norms.values()}
    buffers = [(buffer, buffer.clone()) for module in norms.values() for buffer in module.buffers()]

    # Training mode with momentum 1 leaves each batch's own statistics in the buffers, to be pooled here.
    def record(name: str, module: nn.modules.batchnorm._BatchNorm, args: tuple[Tensor], _: Tensor) -> None:
        count = args[0].numel() // args[0].shape[1]
        assert module.running_mean is not None and module.running_var is not None
        recorder.add(name, module.running_mean, module.running_var * ((count - 1) / count), count)

    handles = [module.register_forward_hook(partial(record, name)) for name, module in norms.items()]
    net.eval()
    for module in norms.values():
        module.train()
        module.momentum = 1.0
    seen = 0
    try:
        for batch in batches:
            images = _images(batch)
            seen += len(images)
            net(images)
    finally:
        for handle in handles:
            handle.remove()
        for part, training in modes.items():
            part.training = training
        for module, momentum in momenta.items():
            module.momentum = momentum
        for buffer, value in buffers:  # also when the batches fail half-way
            buffer.copy_(value)
    _some(seen)
    for name, (mean, variance) in recorder.values().items():
        module = norms[name]
        assert module.running_mean is not None and module.running_var is not None
        module.running_mean.copy_(mean)
        module.running_var.copy_(variance)


def _some(seen: int) -> None:
    if not seen:
        raise SettingError("batches", seen, "at least one image", "pass data.train.clean(256, limit=2048)")
