"""What a predictor says that has seen other subnets of the supernet measured."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nas_kd.rate.scores.base import Bench, Score
from nas_kd.rate.scores.whole import supernet_accuracy
from nas_kd.runtime.seeds import seed_for
from nas_kd.space import Arch, ElasticSpace
from nas_kd.supernet.predictor import MIN_ARCHS, fit_predictor

MEASURED = 200  # subnets that the predictor learns from
DRAWS = 4  # times as many are drawn at most: small spaces repeat


def predicted_accuracy(bench: Bench, archs: Sequence[Arch]) -> list[float]:
    """Measure other subnets with shared weights, fit a predictor to them and ask it; its error on some is noted.

    Where the given archs are nearly the whole space, it has seen some of them. Where fewer than ``MIN_ARCHS`` subnets
    have a number it knows nothing, and all values are NaN.

    Source: OFA (Cai et al. 2020), section 3.4.
    """
    bench.need_net()
    drawn = learned_from(bench.space, bench.seed)
    values = dict(zip(drawn, supernet_accuracy(bench, drawn), strict=True))
    known = [arch for arch in drawn if math.isfinite(values[arch])]
    if len(known) < MIN_ARCHS:
        return [math.nan] * len(archs)
    predictor = fit_predictor(bench.space, known, [values[arch] for arch in known], bench.seed)
    bench.notes["predicted accuracy, error on held-out subnets"] = predictor.rmse
    return [float(value) for value in predictor(archs)]


def learned_from(space: ElasticSpace, seed: int) -> list[Arch]:
    """Draw the archs that the predictor learns from.

    Args:
        space: of the archs.
        seed: of the draws.
    """
    drawn = (space.sample(seed_for(seed, "predictor", draw)) for draw in range(DRAWS * MEASURED))
    return list(dict.fromkeys(drawn))[:MEASURED]


PREDICTED = Score("predicted accuracy", predicted_accuracy, True, needs=frozenset({"supernet"}))
