"""The command rank: a ranking of what the settings name, by any number of processes at once."""

from __future__ import annotations

from dataclasses import replace

from nas_kd.analyse.measure import worded
from nas_kd.config.measures import measure_named
from nas_kd.pipeline.config import Config
from nas_kd.pipeline.pipeline import Pipeline
from nas_kd.ranking.rank import RankResult, rank
from nas_kd.runs.lock import held
from nas_kd.teacher import Teacher


def stage_rank(config: Config) -> None:
    """Train a sample of archs, score the same archs, and print how well each score ranks them."""
    pipeline = Pipeline(config)
    with pipeline.run.working("rank"):
        print_ranking(ranking(pipeline), pipeline.task.measure)
    pipeline.run.log_message(f"rank: {pipeline.run.path / 'rank' / 'summary.csv'}")


def ranking(pipeline: Pipeline, helps: bool = False) -> RankResult:
    """Do what the settings name, or share the trainings of a ranking that is going.

    Args:
        pipeline: the settings' run.
        helps: see ``rank``.

    Returns:
        See ``rank``.
    """
    config = pipeline.config
    begin = pipeline.run.path / "rank" / "claims" / "begin.lock"
    with held(begin, wait=True):
        pipeline.check(keep=not helps)

    def teacher() -> Teacher:
        with held(begin, wait=True):  # where it is trained first, one process does so
            return pipeline.unmatched

    return rank(
        pipeline.space,
        teacher,
        pipeline.data,
        config.rank,
        run=pipeline.run,
        net=lambda: pipeline.supernet,
        blockwise=replace(config.blockwise, stage=None),
        workers=config.workers,
        helps=helps,
        task=pipeline.other_task,
        seed=config.seed,
        runtime=pipeline.runtime,
    )


def print_ranking(found: RankResult, metric: str) -> None:
    """Print the summary, best first.

    Args:
        metric: the name of the task's measure.
    """
    from rich.console import Console
    from rich.table import Table

    measure = measure_named(metric)
    table = Table(title=f"tau-b with the {measure.words} of {int(found.summary['archs'].max())} trained archs")
    for column in ("score", "role", "inside bands", "over all sizes", "minus best size", "CPU min"):
        table.add_column(column, justify="left" if column in ("score", "role") else "right", no_wrap=True)
    for row in found.summary.to_dict("records"):
        spans = [
            f"{row[name]:.2f} [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]" if row[name] == row[name] else "-"
            for name in ("band_tau", "tau", "minus_size")
        ]
        minutes = f"{row['cpu_minutes'] + row['preparation_minutes']:.1f}"
        table.add_row(worded(row["score"], measure), row["role"], *spans, minutes)
    Console(width=None if Console().is_terminal else 140).print(table)
