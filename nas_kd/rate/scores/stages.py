"""Blockwise scores: how far each stage's answer is from the teacher's, added up over the stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from nas_kd.losses import normalised_mse
from nas_kd.rate.scores.base import Bench, Key, Score, keys_of
from nas_kd.space import Arch

Error = Callable[[Tensor, Tensor], Tensor]


def relative_l1(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean absolute error over the standard deviation of the teacher's feature.

    Args:
        student: (N, C, H, W).
        teacher: likewise.

    Returns:
        A scalar without units.

    Source: DNA (Li et al. 2020), equation 6.
    """
    return (student - teacher).abs().mean() / teacher.std()


def noise_to_signal(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean over channels of squared error over the variance of the teacher's channel.

    A channel that never changes says nothing and does not count.

    Args:
        student: (N, C, H, W).
        teacher: likewise.

    Returns:
        A scalar without units.

    Source: DONNA (Moons et al. 2021), equation 1.
    """
    error = (student - teacher).double().square().mean((0, 2, 3))
    signal = teacher.double().var((0, 2, 3), unbiased=False)
    alive = signal > 1e-12 * signal.max()
    return (error[alive] / signal[alive]).mean()


def stage_errors(bench: Bench, archs: Sequence[Arch], error: Error) -> dict[Key, float]:
    """Measure each candidate that occurs in the archs once.

    Args:
        bench: what is measured on.
        archs: the archs.
        error: from the stage's answer and the teacher's feature to a scalar.

    Returns:
        The error of each (stage, entry, candidate).
    """
    calibration, rating = bench.features()
    model, found = bench.need_model(), dict[Key, float]()
    for arch in archs:
        for key in keys_of(bench.space, arch):
            if key not in found:
                answer = model.leave(key[0], bench.stage(key, calibration, rating).rating)
                found[key] = float(error(answer.detach(), rating[key[0]].targets))
    return found


def stage_sum(error: Error, bench: Bench, archs: Sequence[Arch]) -> list[float]:
    """Add up the stages' errors of each arch."""
    errors = stage_errors(bench, archs, error)
    return [sum(errors[key] for key in keys_of(bench.space, arch)) for arch in archs]


BLOCKWISE = frozenset({"teacher", "features", "blockwise"})
RELATIVE_L1 = Score("relative L1", partial(stage_sum, relative_l1), False, needs=BLOCKWISE)
NMSE = Score("normalised MSE", partial(stage_sum, normalised_mse), False, needs=BLOCKWISE)
NOISE_TO_SIGNAL = Score("noise to signal", partial(stage_sum, noise_to_signal), False, needs=BLOCKWISE)
