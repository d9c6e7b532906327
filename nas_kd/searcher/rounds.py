"""Rounds of teachers: the student that one round finds teaches the next one (DNA+)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from nas_kd.config.kinds import checked
from nas_kd.data import Data
from nas_kd.distill import Task, task_of
from nas_kd.errors import SettingError
from nas_kd.rate import rate_blockwise
from nas_kd.runs.files import atomic_write
from nas_kd.runs.run import Run
from nas_kd.runtime.device import Runtime
from nas_kd.searcher.budget import cost_settings
from nas_kd.solve import best
from nas_kd.space.rows import arch_of_rows
from nas_kd.supernet import Supernet
from nas_kd.teacher import Teacher
from nas_kd.train.blockwise_config import BlockwiseConfig
from nas_kd.train.config import RetrainConfig
from nas_kd.train.retrain import retrain

FOLDER = "rounds"


@checked
def teacher_rounds(
    net: Supernet,
    teacher: Teacher,
    data: Data,
    rounds: int,
    *,
    upper: Mapping[str, int],
    rating: BlockwiseConfig | None = None,
    training: RetrainConfig | None = None,
    task: Task | None = None,
    run: Run | str | Path | None = None,
    seed: int = 0,
    runtime: Runtime | None = None,
) -> Teacher:
    """Let found students teach, and return the teacher of the last round.

    In every round but the last the stages are rated against its teacher, the best chain within the budget is solved
    for and trained by that teacher; it is the teacher of the next round. So the last one's ratings depend less on the
    family of the first teacher.

    Args:
        net: the supernet of a named space.
        teacher: of the first round.
        data: the data; ``test`` is not read.
        rounds: how many there are; 1 returns ``teacher``.
        upper: largest ``macs`` and ``params`` of the students.
        rating: how stages are rated.
        training: how the students are trained.
        task: label loss and metric; None is that of the data.
        run: run folder, whose ``rounds/`` keeps every round and ``rounds/rounds.csv`` a row of each; calling again goes
            on where it stopped.
        seed: seed of ratings and trainings.
        runtime: device and precision.

    Raises:
        SettingError: the space is the teacher, or no rated chain is within the budget.

    Source: DNA family (Wang et al. 2024, arXiv 2403.01326), progressive learning of DNA+, in which the student is also
        scaled up before it teaches; here it is the student within the budget.
    """
    space = net.space
    if space.pretrained:
        hint = "use search.steps, which cuts the teacher in steps"
        raise SettingError("search.rounds_of_teachers", rounds, "1 where the space is the teacher", hint)
    if rounds < 1:
        raise SettingError("search.rounds_of_teachers", rounds, "a whole number of at least 1")
    run = Run.of(run)
    measure = (task or task_of(data)).measure
    size = cost_settings(space, data)
    limits: dict[str, tuple[float | None, float | None]] = {name: (None, most) for name, most in upper.items()}
    rows: list[dict[str, Any]] = []
    for number in range(1, rounds):
        own = None if run is None else Run(run.path / FOLDER / f"round_{number}")
        tables = rate_blockwise(net, teacher, data, rating, run=own, seed=seed, runtime=runtime)
        row = best(tables, bounds=limits)
        labels = [row[f"row_{stage}"] for stage in range(1, len(tables) + 1)]
        arch = arch_of_rows(space, tables, labels, data.resolution if space.resolutions else None)
        student: Any = retrain(
            arch,
            teacher,
            data,
            replace(training or RetrainConfig(), test=False),
            space=space,
            run=own,
            folder="retrain",
            task=task,
            seed=seed,
            runtime=runtime,
        )
        cost = space.cost(arch, **size)
        metrics = student.info["metrics"]
        row_of = {"round": number, "teacher": teacher.name, "key": arch.key, "label": arch.label} | cost._asdict()
        rows.append(row_of | {name: metrics[name] for name in (f"select_{measure}", "select_agreement")})
        if run is not None:
            atomic_write(run.path / FOLDER / "rounds.csv", pd.DataFrame(rows).to_csv(index=False))
            reached = metrics[f"select_{measure}"]
            run.log_message(
                f"round {number} of {rounds}: {arch.key} teaches the next, {measure} {reached:.4f} on select"
            )
        teacher = Teacher(
            student,
            f"{space.name}-{arch.key}",
            num_classes=data.num_classes,
            in_chans=data.in_chans,
            mean=data.mean,
            std=data.std,
        ).to(teacher.device)
        teacher.bind(data)
    return teacher
