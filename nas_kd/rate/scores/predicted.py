"""What a predictor says that has seen other subnets of the supernet measured."""

from __future__ import annotations

from collections.abc import Sequence

from nas_kd.errors import SettingError
from nas_kd.rate.scores.base import Bench, Score
from nas_kd.rate.scores.whole import supernet_accuracy
from nas_kd.runtime.seeds import seed_for
from nas_kd.space import Arch
from nas_kd.supernet.predictor import MIN_ARCHS, fit_predictor

MEASURED = 200  # subnets that the predictor learns from
DRAWS = 4  # times as many are drawn at most: small spaces repeat


def predicted_accuracy(bench: Bench, archs: Sequence[Arch]) -> list[float]:
    """Measure other subnets with shared weights, fit a predictor to them and ask it; its error on some is noted.

    Where the given archs are nearly the whole space, it has seen some of them.

    Raises:
        SettingError: the space has too few archs.

    Source: OFA (Cai et al. 2020), section 3.4.
    """
    bench.need_net()
    drawn = (bench.space.sample(seed_for(bench.seed, "predictor", draw)) for draw in range(DRAWS * MEASURED))
    known = list(dict.fromkeys(drawn))[:MEASURED]
    if len(known) < MIN_ARCHS:
        expected = f"a space of at least {MIN_ARCHS} archs, for a predictor"
        raise SettingError("rank.scores", "predicted", expected, "leave it out")
    predictor = fit_predictor(bench.space, known, supernet_accuracy(bench, known), bench.seed)
    bench.notes["predicted accuracy, error on held-out subnets"] = predictor.rmse
    return [float(value) for value in predictor(archs)]


PREDICTED = Score("predicted accuracy", predicted_accuracy, True, needs=frozenset({"supernet"}))
