"""The ensemble of the students' archs, which is grown after these are trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nas_kd.config.measures import measure_named
from nas_kd.pipeline.students import choose_students
from nas_kd.space import Arch
from nas_kd.train.config import RetrainConfig
from nas_kd.train.grow_ensemble import grow_ensemble

if TYPE_CHECKING:
    from nas_kd.pipeline.pipeline import Pipeline


def ensemble_of_students(pipeline: Pipeline) -> None:
    """Grow the ensemble that the settings ask for, and log what it came to."""
    settings = pipeline.config.retrain
    if not settings.ensemble:
        return
    candidates: list[Arch] = [student.arch for student in choose_students(pipeline)]
    how: dict[str, Any] = dict(pipeline.training) | {"epochs": settings.epochs, "method": "kd", "method_settings": {}}
    ensemble: Any = grow_ensemble(
        candidates,
        pipeline.unmatched,
        pipeline.data,
        RetrainConfig(**how),
        space=pipeline.space,
        supernet=None if pipeline.config.init == "scratch" else pipeline.supernet,
        size=min(settings.ensemble, len(dict.fromkeys(candidates))),
        run=pipeline.run,
        task=pipeline.task,
        seed=pipeline.config.seed,
        runtime=pipeline.runtime,
    )
    measure = measure_named(pipeline.task.measure)
    reached = measure.factor * ensemble.info["metrics"][f"select_{measure.name}"]
    said = f"{len(ensemble.members)} students, {ensemble.info['macs']:,} MACs together"
    pipeline.run.log_message(
        f"ensemble of {said}: {measure.words} {reached:.{measure.digits}f}{measure.symbol} on select; "
        f"{pipeline.run.path / 'ensemble' / 'student'}"
    )
