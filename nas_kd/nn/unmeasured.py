"""Batch norms that refuse evaluation until their statistics were measured, by calibration or by training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

CURE = (
    "call nas_kd.calibrate(student, batches) with training images, such as data.train.clean(256, limit=2048), or "
    "net.extract(arch, norm=nas_kd.calibrate(net, batches, archs=[arch])[0]), or train it first"
)


def refuse_unmeasured(network: nn.Module) -> None:
    """Let a network's batch norms raise in evaluation mode as long as their running statistics are fresh ones.

    Weights that were trained with other statistics give near chance with those that a norm begins with, and say
    nothing. Each norm stops to look once its statistics are real: a pass in training mode has updated them, they were
    calibrated, or loaded. What is a network's state stays what it was; copies and pickles refuse as well.

    Args:
        network: any module; its norms without running statistics never refuse.
    """
    for norm in _tracking(network):
        norm.register_forward_pre_hook(_check)


def unmeasured(network: nn.Module) -> bool:
    """Return whether a network would refuse evaluation."""
    return any(_fresh(norm) for norm in _refusing(network))


def will_be_measured(network: nn.Module) -> None:
    """End the refusal: a training begins, which may look at shapes in evaluation mode before its first step."""
    for norm in _refusing(network):
        _accept(norm)


@contextmanager
def any_values(network: nn.Module) -> Iterator[None]:
    """Suspend the refusal where only shapes or times of a network matter."""
    refusing = _refusing(network)
    for norm in refusing:
        _accept(norm)
    try:
        yield
    finally:
        for norm in refusing:
            norm.register_forward_pre_hook(_check)


def _tracking(network: nn.Module) -> list[_BatchNorm]:
    return [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]


def _refusing(network: nn.Module) -> list[_BatchNorm]:
    return [norm for norm in _tracking(network) if _check in norm._forward_pre_hooks.values()]


def _check(norm: _BatchNorm, _: Any) -> None:
    """Raise where fresh statistics would be used; otherwise never look again."""
    if norm.training:
        if torch.compiler.is_compiling():  # a compiled step changes no hooks; the next look is at the statistics
            return
    elif _fresh(norm):
        raise RuntimeError(f"the batch norms of this extracted network have fresh running statistics: {CURE}")
    _accept(norm)


def _accept(norm: _BatchNorm) -> None:
    for number in [number for number, hook in norm._forward_pre_hooks.items() if hook is _check]:
        del norm._forward_pre_hooks[number]


def _fresh(norm: _BatchNorm) -> bool:
    """Return whether a norm's statistics are those that it began with."""
    mean = norm.running_mean
    variance = norm.running_var
    tracked = norm.num_batches_tracked
    if mean is None or variance is None or tracked is None:
        return False
    try:
        return not tracked.any() and not mean.any() and bool(variance.eq(1).all())
    except RuntimeError:  # torch.export knows no values, nor has the meta device any
        return True
