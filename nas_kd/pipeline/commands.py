"""One function a command: open what the settings name, do the work that is not done yet, say what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from nas_kd.analyse import report
from nas_kd.errors import SettingError
from nas_kd.pipeline.config import Config
from nas_kd.pipeline.describe import describe
from nas_kd.pipeline.ensemble import ensemble_of_students
from nas_kd.pipeline.given import Given
from nas_kd.pipeline.mirror import tracked
from nas_kd.pipeline.pipeline import Pipeline
from nas_kd.pipeline.plan import Work, plan, words
from nas_kd.pipeline.rank_command import stage_rank as stage_rank
from nas_kd.pipeline.students import print_table, retrain_students
from nas_kd.runs.files import atomic_json, read_json
from nas_kd.runs.place import Place
from nas_kd.runtime.ranks import peer_lost
from nas_kd.teacher import describe_taps


def stage_describe(config: Config) -> None:
    """Print the size and the costs of the space, and whether the budget is feasible."""
    given = Given(config)
    for line in describe(given, shipped=True):
        print(line)
    for line in _planned(given)[1]:
        print(line)


def _planned(given: Given) -> tuple[list[Work], list[str]]:
    """Return what a run goes through and the lines that say so; none where a step of it does not run by itself."""
    if not given.config.plan:
        return [], []
    folder = given.run.path if isinstance(given, Pipeline) else None
    try:
        works = plan(given, folder)
    except (SettingError, RuntimeError, ValueError) as error:  # a network that does not train at random weights
        return [], [f"no plan: {' '.join(str(error).split())[:200]}"]
    resumed = any(work.left < 1 and work.seconds for work in works)
    return works, list(words(works, resumed))


@contextmanager
def _opened(config: Config, command: str, part: str | None = None) -> Iterator[Pipeline]:
    """Open a run for one command, alone or beside other parts, with every mistake found that can be found now."""
    pipeline = Pipeline(config)
    with pipeline.run.locked(part):
        kept = pipeline.run.config_text()
        pipeline.check()
        try:
            with pipeline.run.working(command), tracked(pipeline.run, config.log or (), asdict(config)):
                yield pipeline
        except SettingError:
            if kept is not None and kept != pipeline.run.config_text():
                pipeline.run.record_config(kept)  # refused settings are not those of the run
            raise


def _need_teacher(config: Config, command: str) -> None:
    if config.teacher.model is None:
        expected = f"a network: `nas-kd {command}` has nothing to do without a teacher"
        raise SettingError("teacher.model", None, expected, "give teacher.model, or go on with `nas-kd supernet`")


def stage_teacher(config: Config) -> None:
    """Train or fine-tune the teacher."""
    _need_teacher(config, "teacher")
    if not config.teacher.epochs:
        expected = "an integer of at least 1 for this command"
        raise SettingError("teacher.epochs", config.teacher.epochs, expected, "give teacher.epochs")
    with _opened(config, "teacher") as pipeline:
        pipeline.run.log_message(
            f"teacher: {pipeline.run.path / 'teacher' / 'weights.safetensors'}: {pipeline.unmatched}"
        )


def stage_supernet(config: Config) -> None:
    """Train the supernet."""
    with _opened(config, "supernet") as pipeline:
        pipeline.run.log_message(f"supernet: {pipeline.supernet.space.name} in {pipeline.run.path / 'supernet'}")


def follow(config: Config) -> None:
    """Train the supernet in a further process of torchrun; only the first one writes files and does the rest."""
    try:
        _ = Pipeline(config).supernet  # trains it
    except RuntimeError as error:
        if peer_lost(error):
            raise ConnectionAbortedError("the first process has stopped; see its message") from error
        raise


def stage_blockwise(config: Config) -> None:
    """Rate every candidate of every stage against the teacher, or against the average of the stages."""
    if config.blockwise.source == "teacher":
        _need_teacher(config, "blockwise")
    if config.blockwise.stage is not None:
        return _one_stage(config, config.blockwise.stage)
    with _opened(config, "blockwise") as pipeline:
        _say_taps(pipeline)
        _rate(pipeline)
        rows = ", ".join(str(len(table)) for table in pipeline.tables)
        pipeline.run.log_message(f"blockwise: rows a stage: {rows}; in {pipeline.run.path / 'blockwise'}")


def _one_stage(config: Config, number: int) -> None:
    """Rate one stage as a job of its own; other stages may be rated in the same run at the same time."""
    with _opened(config, "blockwise", f"stage_{number}") as pipeline:
        for name in ("teacher", "supernet") if config.teacher.epochs else ("supernet",):
            file = pipeline.run.path / name / "stage.json"
            if not file.exists() or not read_json(file, ("done",))["done"]:
                hint = f"run `nas-kd {name}` with the same settings first"
                raise SettingError("blockwise.stage", number, f"a run whose {name} is trained, for one stage", hint)
        table = pipeline.rated(number)[0]
        folder = pipeline.run.path / "blockwise" / f"stage_{number}"
        pipeline.run.log_message(f"blockwise: {len(table)} rows of stage {number} in {folder / f'stage_{number}.csv'}")


def _say_taps(pipeline: Pipeline) -> None:
    if pipeline.config.blockwise.source == "average":
        return pipeline.run.log_message("stages learn from the average of their own weights")
    for line in describe_taps(pipeline.teacher.taps or ()):
        pipeline.run.log_message(line)


def _rate(pipeline: Pipeline) -> None:
    """Rate the stages, and keep which layers of the teacher they were rated against."""
    _ = pipeline.tables  # rates, or raises when they were rated against others
    if pipeline.config.blockwise.source == "average":
        return
    taps = [
        {
            "stage": number,
            "teacher_path": tap.path,
            "teacher_channels": tap.channels,
            "teacher_size": tap.size,
            "student_size": tap.student_size,
        }
        for number, tap in enumerate(pipeline.teacher.taps or (), 1)
    ]
    atomic_json(pipeline.run.path / "teacher" / "stages.json", taps)


def stage_search(config: Config) -> None:
    """Find the best architecture within the budget."""
    with _opened(config, "search") as pipeline:
        best = pipeline.result.best
        total = pipeline.space.cost(best, **pipeline.cost)
        pipeline.run.log_message(f"found {best.key}: {best.label}; {total.macs:,} MACs, {total.params:,} params")


def stage_retrain(config: Config) -> None:
    """Retrain the found student and those it is compared with."""
    with _opened(config, "retrain") as pipeline:
        _retrain(pipeline)
        print_table(pipeline)


def _retrain(pipeline: Pipeline) -> None:
    """Retrain the students, and grow the ensemble that the settings ask for."""
    retrain_students(pipeline)
    ensemble_of_students(pipeline)


def run_pipeline(config: Config) -> None:
    """Do everything in order, skipping what is done, and end with the table of results."""
    with _opened(config, "run") as pipeline:
        for line in describe(pipeline):
            pipeline.run.log_message(line)
        steps: list[tuple[str, Callable[[], Any]]] = [
            ("the teacher as the space" if config.derived else "supernet", lambda: pipeline.supernet),
            ("search", lambda: pipeline.result),
            ("retrain", lambda: _retrain(pipeline)),
        ]
        if config.guided:
            steps.insert(1, ("units" if config.derived else "blockwise", lambda: _rate(pipeline)))
        if pipeline.taught:
            learn = ("teacher logits", lambda: pipeline.cache)
            steps = [("teacher", lambda: _say_taps(pipeline)), learn, *steps]
        else:
            how = f"{config.engine} searches by the supernet's accuracy, students learn from labels"
            pipeline.run.log_message(f"no teacher: {how}")
        works, lines = _planned(pipeline)
        for line in lines:
            pipeline.run.log_message(line)
        left = [work.left * work.seconds for work in works]
        for number, (name, step) in enumerate(steps, 1):
            own = left[number - 1] if left else None
            pipeline.run.place = Place(number, len(steps), own, sum(left[number:]))
            pipeline.run.log_message(f"[{number}/{len(steps)}] {name}")
            step()
        print(f"report: {report(pipeline.run)}")
        print_table(pipeline)
