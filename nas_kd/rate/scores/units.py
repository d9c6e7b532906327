"""Scores of a teacher's units added up: the sum of `rate_units` over an arch."""

from __future__ import annotations

from collections.abc import Sequence

from nas_kd.derive.config import UnitScore
from nas_kd.derive.supernet import of_teacher
from nas_kd.rate.scores.base import Bench, Score
from nas_kd.rate.units import rate_units
from nas_kd.space import Arch
from nas_kd.space.rows import stage_scores


def _added(score: UnitScore, bench: Bench, archs: Sequence[Arch]) -> list[float]:
    net = of_teacher(bench.need_net())  # `rank` uses it with a teacher's space only
    tables = rate_units(net, bench.need_teacher(), bench.data, score=score, images=bench.images, task=bench.task)
    images = min(bench.images, len(bench.data.rate))
    # a local error runs one unit, a replaced one all that comes after it too
    runs = [len(tables) - index if score == "replace_one" else 1 for index in range(len(tables))]
    bench.used.student += images * sum(n * len(table) for n, table in zip(runs, tables, strict=True)) / len(tables)
    bench.used.teacher += images
    stages = stage_scores(bench.space, tables)
    return [sum(stages(arch)) for arch in archs]


def units_kl(bench: Bench, archs: Sequence[Arch]) -> list[float]:
    """Add up what the teacher's logits lose by each unit's choice alone."""
    return _added("replace_one", bench, archs)


def units_local(bench: Bench, archs: Sequence[Arch]) -> list[float]:
    """Add up the errors of the units' outputs on the teacher's own inputs."""
    return _added("local", bench, archs)


NEEDS = frozenset({"teacher", "supernet", "units"})
UNITS_KL = Score("units replace-one KL", units_kl, False, needs=NEEDS)
UNITS_LOCAL = Score("units noise to signal", units_local, False, needs=NEEDS)
