"""The archs that a search begins with: those that a guided one finds in the teacher's space, and those of a file."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from nas_kd.config.paths import existing
from nas_kd.derive.supernet import of_teacher
from nas_kd.errors import SettingError
from nas_kd.runs.files import read_json
from nas_kd.runs.shape import as_written
from nas_kd.searcher.around import archs_around
from nas_kd.searcher.gated import check_gates, gated_arch
from nas_kd.space import Arch

if TYPE_CHECKING:
    import pandas as pd

    from nas_kd.data import Data
    from nas_kd.distill import Task
    from nas_kd.runs.run import Run
    from nas_kd.runtime.device import Runtime
    from nas_kd.searcher.budget import Budget
    from nas_kd.searcher.config import SearchConfig
    from nas_kd.space import ElasticSpace
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
        of_teacher(net),
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


def read_archs(path: str, space: ElasticSpace) -> list[Arch]:
    """Read archs to score first.

    Args:
        path: of a JSON file: ``paths`` of archs, as on Cream's board, or one ``arch``, as a search's best.json has.
        space: which they must be of.

    Raises:
        SettingError: there is no such file, it holds something else, or archs of another space.
    """
    file = existing("search.first", path, "a JSON file of archs")
    found = read_json(file)
    rows = found.get("paths", [found]) if isinstance(found, dict) else []
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) and "arch" in row for row in rows):
        expected = "a file with paths of archs, or an arch, such as supernet/board.json or search/best.json"
        raise SettingError("search.first", path, expected, "name one of these")
    with as_written(file, "name supernet/board.json or search/best.json of a run"):
        archs = [Arch.from_dict(row["arch"]) for row in rows]
    for arch in archs:
        if arch.space != space.hash:
            expected = f"archs of {space.name}"
            raise SettingError("search.first", path, expected, "name a file of a run in the same space")
        space.validate(arch)
    return archs


def passed_over(archs: Sequence[Arch], scored: Collection[str], budget: Budget, engine: str) -> str:
    """Say which archs of a file a search did not score; nothing where it scored all.

    Args:
        archs: of `read_archs`.
        scored: keys of the archs that it scored.
        budget: of the search.
        engine: its name.
    """
    left = [arch for arch in archs if arch.key not in scored]
    over = [arch.key for arch in left if not budget.affordable(arch)]
    others = [arch.key for arch in left if budget.affordable(arch)]
    parts = [f"{', '.join(over)}: over the budget"] if over else []
    parts += [f"{', '.join(others)}: not taken up by {engine}"] if others else []
    return f"search.first: {len(left)} of {len(archs)} archs are not scored ({'; '.join(parts)})" if left else ""
