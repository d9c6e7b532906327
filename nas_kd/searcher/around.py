"""Additive scores near the current arch: choices are rated again in the best arch, and solved for again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from nas_kd.derive.supernet import TeacherSupernet
from nas_kd.rate.units import rate_units, subnet_loss
from nas_kd.solve import best
from nas_kd.solve.limits import Bounds
from nas_kd.space import Arch
from nas_kd.space.rows import arch_of_rows

if TYPE_CHECKING:
    from nas_kd.data import Data
    from nas_kd.distill import Task
    from nas_kd.teacher.targets import LiveSource


def archs_around(
    net: TeacherSupernet,
    teacher: LiveSource,
    data: Data,
    tables: Sequence[pd.DataFrame],
    bounds: Bounds,
    *,
    rounds: int = 3,
    images: int = 192,
    temperature: float = 4.0,
    task: Task | None = None,
) -> list[tuple[Arch, float]]:
    """Solve for the best arch within a budget, rate all choices in it, and solve again.

    Scores of single cuts in the whole teacher do not add up where all is cut: a unit matters more when its
    neighbours are gone. A choice is therefore rated in the last arch; scores are averaged with those before, so
    that the archs do not oscillate.

    Args:
        net: the teacher's supernet.
        teacher: the teacher, bound to the data.
        data: its ``rate`` images are used.
        tables: of `rate_units`, to start from.
        bounds: upper bounds of ``macs`` and ``params``, or pairs of bounds.
        rounds: archs to solve for: the one of the tables, then one after each rating around the one before. A rating
            costs one forward pass of a subnet per choice.
        images: how many, at most; norms take their statistics.
        temperature: of both answers: what a cut network is still wrong about says more than its first class.
        task: whose divergence a rating is; None is that of the data.

    Returns:
        At most that many archs, while they differ, each with its KL to the teacher (softened, nats).
    """
    space = net.space
    found: list[tuple[Arch, float]] = []
    scores: list[pd.Series] = []
    rated = list(tables)
    while len(found) < rounds:
        row = best(rated, bounds=bounds)
        labels = [row[f"row_{number}"] for number in range(1, len(rated) + 1)]
        arch = arch_of_rows(space, rated, labels, data.resolution)
        if any(arch == known for known, _ in found):
            break
        if len(found) + 1 == rounds:  # no choice is solved for again
            loss = subnet_loss(net, teacher, data, arch, images=images, temperature=temperature, task=task)
            found.append((arch, loss))
            break
        first = rated[0].loc[labels[0], "candidate"]
        rated = rate_units(
            net,
            teacher,
            data,
            score="replace_one",
            images=images,
            temperature=temperature,
            around=arch,
            task=task,
        )
        alone = (
            rated[0].set_index("candidate").loc[first, "score"]
        )  # the first unit's score includes the arch's own loss
        found.append((arch, float(alone)))
        latest = [table["score"] for table in rated]
        scores = [(one + two) / 2 for one, two in zip(scores, latest, strict=True)] if scores else latest
        rated = [table.assign(score=score) for table, score in zip(rated, scores, strict=True)]
        if "latency_ms" in tables[0]:
            rated = [new.assign(latency_ms=old["latency_ms"]) for new, old in zip(rated, tables, strict=True)]
    return found
