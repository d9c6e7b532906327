"""Strong cuts in steps: the teacher is cut to a part of the way, distilled for a short while, and cut again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from nas_kd.config.kinds import checked
from nas_kd.data import Data
from nas_kd.derive.config import DeriveConfig
from nas_kd.derive.space import TeacherSpace, teacher_space
from nas_kd.derive.supernet import TeacherSupernet, of_teacher
from nas_kd.distill import Task, task_of
from nas_kd.errors import SettingError
from nas_kd.rate.units import rate_units
from nas_kd.runs.files import atomic_json, atomic_write, read_json
from nas_kd.runs.run import Run
from nas_kd.runtime.device import Runtime
from nas_kd.searcher.around import archs_around
from nas_kd.searcher.budget import cost_settings
from nas_kd.searcher.config import SearchConfig
from nas_kd.space import Arch, Cost
from nas_kd.supernet import Supernet
from nas_kd.teacher import TargetSource, Teacher
from nas_kd.teacher.text import seal
from nas_kd.train.config import RetrainConfig
from nas_kd.train.repair import repair_units
from nas_kd.train.repair_config import RepairConfig
from nas_kd.train.retrain import retrain
from nas_kd.train.weights import weights_hash

FOLDER = "steps"
Derive = Callable[[Teacher, Data], TeacherSpace]


@checked
def cut_in_steps(
    net: Supernet,
    teacher: Teacher,
    data: Data,
    config: SearchConfig | None = None,
    *,
    upper: Mapping[str, int],
    derive: Derive = teacher_space,
    rating: DeriveConfig | None = None,
    repair: RepairConfig | None = None,
    training: RetrainConfig | None = None,
    answers: TargetSource | None = None,
    task: Task | None = None,
    run: Run | str | Path | None = None,
    seed: int = 0,
    runtime: Runtime | None = None,
) -> TeacherSupernet:
    """Cut a teacher to all budgets but the last, and return the supernet that the last cut is searched in.

    Step k of N cuts to the k-th part of the way: where the budget is a share s of the teacher, to s^(k/N). Its units
    are rated, the best arch is solved for and distilled by the teacher for ``step_epochs``; the student's own space is
    then derived, and its cuts repaired. The same teacher teaches in all steps.

    Args:
        net: `nas_kd.Supernet` of the teacher's space, perhaps repaired.
        teacher: the teacher, bound to the data.
        data: the data; ``test`` is not read.
        config: ``steps``, ``step_epochs`` and the settings of ``rerate``.
        upper: largest ``macs`` and ``params`` of the last step.
        derive: derives the space of a student as the teacher's was.
        rating: how choices are rated by themselves.
        repair: how the cuts of each student are repaired.
        training: method and further settings of the short trainings.
        answers: the teacher's stored answers; None runs it.
        task: label loss, metric and agreement; None is that of the data.
        run: run folder, whose ``steps/`` keeps every step and ``steps/steps.csv`` a row of each; the same call again
            goes on where it stopped.
        seed: seed of trainings.
        runtime: device and precision.

    Returns:
        The supernet of the last student's space, with its weights and repaired cuts.

    Raises:
        SettingError: there is no bound to cut to, or the run was made with other settings.
    """
    net = of_teacher(net)
    config = config or SearchConfig()
    if not upper:
        raise SettingError("upper", {}, "a bound on macs or params to cut to", "pass upper={'macs': 5_000_000}")
    run = Run.of(run)
    measure = (task or task_of(data)).measure
    size = cost_settings(net.space, data)
    whole = net.space.cost(net.space.largest(), **size)
    rows: list[dict[str, Any]] = []
    for step in range(1, config.steps):
        own = None if run is None else Run(run.path / FOLDER / f"step_{step}")
        part = step / config.steps
        bounds = {
            name: int(getattr(whole, name) * (most / getattr(whole, name)) ** part) for name, most in upper.items()
        }
        arch, kl = _cut(net, teacher, data, config, rating or DeriveConfig(), bounds, task, own)
        student: Any = retrain(
            arch,
            teacher if answers is None else answers,
            data,
            replace(training or RetrainConfig(), epochs=config.step_epochs, test=False),
            space=net.space,
            supernet=net,
            run=own,
            folder="retrain",
            task=task,
            seed=seed,
            runtime=runtime,
        )
        cost = net.space.cost(arch, **size)
        names = (f"select_{measure}", "select_agreement")
        metrics = {name: value for name, value in student.info["metrics"].items() if name in names}
        rows.append(_row(step, bounds, arch, cost, whole, kl, metrics))
        if run is not None:
            atomic_write(run.path / FOLDER / "steps.csv", pd.DataFrame(rows).to_csv(index=False))
            run.log_message(f"step {step} of {config.steps}: {cost.macs:,} MACs, {100 * cost.macs / whole.macs:.1f} %")
        base = seal(
            student,
            f"{teacher.name}-{arch.key}",
            num_classes=teacher.num_classes,
            in_chans=teacher.in_chans,
            mean=teacher.mean,
            std=teacher.std,
        ).to(teacher.device)
        base.bind(data)
        net = of_teacher(Supernet(derive(base, data)))
        net = repair_units(net, base, data, repair, run=own, seed=seed, runtime=runtime)
    return net


def _cut(
    net: TeacherSupernet,
    teacher: Teacher,
    data: Data,
    config: SearchConfig,
    rating: DeriveConfig,
    bounds: Mapping[str, int],
    task: Task | None,
    run: Run | None,
) -> tuple[Arch, float]:
    """Return the best arch of a step and its KL to the teacher."""
    tables = rate_units(
        net,
        teacher,
        data,
        score=rating.score,
        images=rating.rate_images,
        temperature=rating.temperature,
        task=task,
        run=run,
    )
    stage = None
    if run is not None:
        facts: dict[str, Any] = {"space": net.space.hash, "supernet": weights_hash(net), "teacher": teacher.fingerprint}
        facts |= {"data": data.fingerprint, "bounds": dict(bounds), "rerate": config.rerate}
        facts |= {"rerate_images": config.rerate_images, "rerate_temperature": config.rerate_temperature}
        stage = run.stage("cut", facts)
        if stage.done:
            kept = read_json(stage.folder / "best.json", ("arch", "kl"))
            return Arch.from_dict(kept["arch"]), float(kept["kl"])
    found = archs_around(
        net,
        teacher,
        data,
        tables,
        bounds,
        rounds=max(1, config.rerate),
        images=config.rerate_images,
        temperature=config.rerate_temperature,
        task=task,
    )
    arch, kl = min(found, key=lambda one: one[1])
    if stage is not None:
        atomic_json(stage.folder / "best.json", {"arch": arch.to_dict(), "label": arch.label, "kl": kl})
        stage.finish({"best": arch.key})
    return arch, kl


def _row(
    step: int,
    bounds: Mapping[str, int],
    arch: Arch,
    cost: Cost,
    whole: Cost,
    kl: float,
    metrics: Mapping[str, float],
) -> dict[str, Any]:
    """Describe a step; shares are of the original teacher."""
    row: dict[str, Any] = {"step": step, "key": arch.key, "label": arch.label}
    row |= {f"max_{name}": most for name, most in bounds.items()}
    row |= cost._asdict()
    row |= {f"{name}_percent": 100 * getattr(cost, name) / getattr(whole, name) for name in cost._fields}
    return row | {"kl": kl} | dict(metrics)
