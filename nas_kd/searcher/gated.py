"""The arch that learned gates say: what their values are worth, kept within the budget exactly."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nas_kd.derive.gates import Gates
from nas_kd.derive.supernet import TeacherSupernet
from nas_kd.errors import SettingError
from nas_kd.runs.files import atomic_json, read_json
from nas_kd.solve import best
from nas_kd.space import Arch
from nas_kd.space.arch import Candidate
from nas_kd.space.rows import arch_of_rows, cost_rows
from nas_kd.train.gates import learn_gates

if TYPE_CHECKING:
    from nas_kd.data import Data
    from nas_kd.distill import Task
    from nas_kd.runs.run import Run
    from nas_kd.runtime.device import Runtime
    from nas_kd.searcher.budget import Budget
    from nas_kd.searcher.config import SearchConfig
    from nas_kd.supernet import Supernet
    from nas_kd.teacher import TargetSource
    from nas_kd.teacher.targets import LiveSource

FIELD = "search.engine"


def check_gates(net: Supernet, source: TargetSource | None, budget: Budget) -> tuple[TeacherSupernet, LiveSource]:
    """Check that gates can learn here.

    Args:
        net: what is searched in.
        source: what teaches.
        budget: of the search.

    Returns:
        The teacher's supernet, and the teacher.

    Raises:
        SettingError: the space is not the teacher, it has streams to cut, there is no network that teaches, or no
            bound on MACs or parameters.
    """
    if not isinstance(net, TeacherSupernet):
        hint = "leave space out (in Python: nas_kd.teacher_space), or use search.engine=exact"
        raise SettingError(FIELD, "gates", "a space made from the teacher, whose parts get the gates", hint)
    if net.cuts.streams:
        hint = "leave derive.residual out; for a network without residual blocks use search.engine=exact"
        raise SettingError(FIELD, "gates", "a space that cuts inside residual blocks alone", hint)
    live = None if source is None else source.teacher
    if live is None:
        hint = "pass teacher=nas_kd.load_teacher(...)"
        raise SettingError(FIELD, "gates", "a teacher whose network runs on every batch", hint)
    if not budget.upper:
        hint = "give search.max_macs=30%"
        raise SettingError(FIELD, "gates", "a bound on MACs or parameters, which the gates are priced by", hint)
    return net, live


def gated_arch(
    net: TeacherSupernet,
    teacher: LiveSource,
    data: Data,
    budget: Budget,
    config: SearchConfig,
    *,
    task: Task | None = None,
    run: Run | None = None,
    folder: str = "search",
    facts: dict[str, Any] | None = None,
    seed: int = 0,
    runtime: Runtime | None = None,
) -> Arch:
    """Learn gates of the teacher's parts and units, and return the arch that they say.

    Args:
        net: `nas_kd.Supernet` of the teacher's space.
        teacher: the teacher, bound to the data.
        data: its ``train`` images are used.
        budget: of the search.
        config: how long and how fast the gates learn.
        task: whose divergence they learn by; None is that of the data.
        run: run folder, whose ``FOLDER/gates`` keeps the gates; the same call again goes on where it stopped.
        folder: the search's folder.
        facts: what the search depends on, for the record.
        seed: seed of order and augmentation.
        runtime: device and precision.

    Raises:
        SettingError: no arch at the images' size is within the budget.
    """
    cost = {"resolution": data.resolution, "in_chans": data.in_chans, "num_classes": data.num_classes}
    whole = replace(net.space.largest(), resolution=data.resolution if net.space.resolutions else None)
    total = budget.cost_of(whole)
    shares = {name: most / getattr(total, name) for name, most in budget.upper.items()}
    column = min(shares, key=lambda name: shares[name])
    gates = Gates.of(net, cost, column)
    arch_of_gates(net, gates, torch.ones(gates.count), budget, cost)  # raises now where no arch is within the budget
    how: dict[str, Any] = {"epochs": config.gate_epochs, "lr": config.gate_lr, "temperature": config.rerate_temperature}
    stage = None if run is None else run.stage(f"{folder}/gates", (facts or {}) | how)
    if stage is not None and stage.done:
        learned = torch.tensor(read_json(stage.folder / "gates.json", ("gates",))["gates"])
    else:
        learned = learn_gates(
            net,
            gates,
            teacher,
            data,
            share=shares[column],
            **how,
            task=task,
            stage=stage,
            seed=seed,
            runtime=runtime,
        )
        if stage is not None:
            named = [
                {"unit": net.cuts.units[group.unit].path, "group": group.group, "gates": group.of(learned).tolist()}
                for group in gates.groups
            ]
            atomic_json(stage.folder / "gates.json", {"gates": learned.tolist(), "by_unit": named})
            stage.finish({"left": float(gates.share(learned)), "budget": shares[column]})
            stage.forget()
    return arch_of_gates(net, gates, learned, budget, cost)


def arch_of_gates(net: TeacherSupernet, gates: Gates, values: Tensor, budget: Budget, cost: dict[str, int]) -> Arch:
    """Return the arch within a budget that closes the least of the gates.

    Where gates have learned, each open one is worth its price: the answers get worse at the rate of its part's cost.
    So what an arch loses is, to first order, the values of the gates that it closes times what their parts cost, and
    the arch that loses least within the budget is solved for exactly: units and channels with gates about zero go
    first, and what is left of the budget goes to the highest of the others. Of each group an arch has a number of
    parts; the space says which stay.

    Args:
        net: of the teacher's space.
        gates: which gates there are.
        values: (N,) their sizes.
        budget: of the search.
        cost: keywords of ``space.cost``, with the ``resolution`` of the images.

    Raises:
        SettingError: no arch at this resolution is within the budget.
    """
    space = net.space
    size = cost["resolution"] if space.resolutions else None
    tables = cost_rows(space, **cost)
    for at, (link, stage) in enumerate(zip(net.links, space.stages, strict=True)):
        assert link.unit is not None
        lost = [_lost(gates, link.unit, candidate, values) for candidate in stage.candidates()]
        tables[at] = tables[at].assign(score=[lost[number] for number in tables[at]["candidate"]])
    row = best(budget.timed(tables, cost["resolution"]), bounds=budget.sums)
    labels = [row[f"row_{number}"] for number in range(1, len(tables) + 1)]
    return arch_of_rows(space, tables, labels, size)


def _lost(gates: Gates, unit: int, candidate: Candidate, values: Tensor) -> float:
    """Return the price of the gates that a unit's choice closes: of one that is left out its own and all in it."""
    total = 0.0
    for group in gates.groups:
        if group.unit == unit:
            kept = 0 if not candidate.layers else 1 if group.group is None else int(candidate.layers[0][group.group])
            closed = group.count - kept
            total += group.cost * float(group.of(values).double().sort().values[:closed].sum())
    return total
