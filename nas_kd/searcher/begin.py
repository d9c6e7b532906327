"""The archs that a guided search of the teacher's space begins with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from nas_kd.derive.supernet import TeacherSupernet
from nas_kd.searcher.around import archs_around
from nas_kd.searcher.gated import check_gates, gated_arch

if TYPE_CHECKING:
    import pandas as pd

    from nas_kd.data import Data
    from nas_kd.distill import Task
    from nas_kd.runs.run import Run
    from nas_kd.runtime.device import Runtime
    from nas_kd.searcher.budget import Budget
    from nas_kd.searcher.config import SearchConfig
    from nas_kd.space import Arch
    from nas_kd.supernet import Supernet
    from nas_kd.teacher import TargetSource


def first_archs(
    engine: str,
    net: Supernet,
    source: TargetSource | None,
    data: Data,
    tables: Sequence[pd.DataFrame],
    budget: Budget,
    config: SearchConfig,
    *,
    within: bool,
    task: Task | None,
    run: Run | None,
    folder: str,
    facts: dict[str, Any],
    seed: int,
    runtime: Runtime,
) -> list[Arch]:
    """Find the archs that are scored first: those of learned gates, or of choices that are rated again in each other.

    Args:
        engine: name of the engine.
        net: what is searched in.
        source: what teaches.
        data: the data.
        tables: the ratings.
        budget: of the search.
        config: the settings of ``rerate``, and how gates learn.
        within: whether any rated chain is within the budget.
        task: what labels mean.
        run: run folder.
        folder: the search's folder in it.
        facts: what the search depends on, for the record of what is learned here.
        seed: seed of trainings.
        runtime: device and precision.
    """
    if engine == "gates":
        cuts, live = check_gates(net, source, budget)
        arch = gated_arch(
            cuts, live, data, budget, config, task=task, run=run, folder=folder, facts=facts, seed=seed, runtime=runtime
        )
        return [arch]
    taught = None if source is None else source.teacher
    if not (config.rerate and net.space.pretrained and taught is not None and within):
        return []
    near = archs_around(
        cast(TeacherSupernet, net),
        taught,
        data,
        tables,
        budget.sums,
        rounds=config.rerate,
        images=config.rerate_images,
        temperature=config.rerate_temperature,
        task=task,
    )
    return [arch for arch, _ in near]
