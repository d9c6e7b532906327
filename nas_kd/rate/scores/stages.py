"""Blockwise scores: the error of each stage's output against the teacher's, added up over the stages."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from nas_kd.rate import errors
from nas_kd.rate.scores.base import Bench, Key, Score, keys_of
from nas_kd.space import Arch


def stage_errors(bench: Bench, archs: Sequence[Arch], error: errors.StageError) -> dict[Key, float]:
    """Measure each candidate that occurs in the archs once.

    Args:
        bench: what is measured on.
        archs: the archs.
        error: compares a stage's output with the teacher's feature.

    Returns:
        The error of each (stage, entry, candidate).
    """
    calibration, rating = bench.features()
    model = bench.need_model()
    found = dict[Key, float]()
    for arch in archs:
        for key in keys_of(bench.space, arch):
            if key not in found:
                answer = model.leave(key[0], bench.stage(key, calibration, rating).rating)
                found[key] = float(error(answer.detach(), rating[key[0]].targets))
    return found


def stage_sum(error: errors.StageError, bench: Bench, archs: Sequence[Arch]) -> list[float]:
    """Add up the stages' errors of each arch."""
    found = stage_errors(bench, archs, error)
    return [sum(found[key] for key in keys_of(bench.space, arch)) for arch in archs]


BLOCKWISE = frozenset({"teacher", "features", "blockwise"})
RELATIVE_L1 = Score("relative L1", partial(stage_sum, errors.RELATIVE_L1), False, needs=BLOCKWISE)
NMSE = Score("normalised MSE", partial(stage_sum, errors.NMSE), False, needs=BLOCKWISE)
NOISE_TO_SIGNAL = Score("noise to signal", partial(stage_sum, errors.NSR), False, needs=BLOCKWISE)
