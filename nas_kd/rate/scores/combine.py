"""Scores made of others without trained archs: the residual of a score on size, and mean ranks of several."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from nas_kd.rate.scores.base import Bench, Score
from nas_kd.rate.scores.size import depth, log_widths, macs, params
from nas_kd.rate.scores.stages import NMSE
from nas_kd.rate.scores.whole import SUPERNET_KL
from nas_kd.space import Arch


def residual(score: Score, bench: Bench, archs: Sequence[Arch]) -> list[float]:
    """Return what a linear regression on the size controls leaves of a score, over these archs.

    Every larger stage fits better, so a score is mostly size (P7 of the protocol); this is the rest of it. It
    compares the archs with each other, so it depends on the company; a size control that does not vary among
    them takes nothing.
    """
    value = np.array(score.measure(bench, archs))
    sizes = [np.log(macs(bench, archs)), np.log(params(bench, archs)), log_widths(bench, archs), depth(bench, archs)]
    known = np.isfinite(value)
    design = np.array([np.ones(len(archs)), *sizes]).T
    weights = np.linalg.lstsq(design[known], value[known], rcond=None)[0]
    left = value - design @ weights
    # what is a sum of sizes but for rounding is 0: it implies no order
    small = 1e-9 * max(1.0, float(np.abs(value[known]).max(initial=0.0)))
    return np.where(np.abs(left) < small, 0.0, left).tolist()


def mean_rank(scores: Sequence[Score], bench: Bench, archs: Sequence[Arch]) -> list[float]:
    """Return the mean of the archs' ranks by several scores, 0 for the best of all in each.

    Scores of other units need no weights that way. An arch that one of them does not score has none.
    """
    ranks = []
    for score in scores:
        signed = np.array(score.signed(score.measure(bench, archs)))
        better = (signed[None, :] > signed[:, None]).sum(1) + 0.5 * ((signed[None, :] == signed[:, None]).sum(1) - 1)
        ranks.append(np.where(np.isfinite(signed), better, np.nan))
    return np.mean(ranks, axis=0).tolist()


NMSE_AFTER_SIZE = Score("normalised MSE after size", partial(residual, NMSE), False, needs=NMSE.needs)
KL_AFTER_SIZE = Score("supernet KL after size", partial(residual, SUPERNET_KL), False, needs=SUPERNET_KL.needs)
KL_AND_NMSE = Score(
    "ranks of supernet KL and MSE", partial(mean_rank, (SUPERNET_KL, NMSE)), False, needs=SUPERNET_KL.needs | NMSE.needs
)
