"""The option --worker of search and rank: help a run that is going, by as many processes as there are cores."""

from __future__ import annotations

from pathlib import Path

from nas_kd.errors import SettingError
from nas_kd.pipeline.config import Config
from nas_kd.pipeline.pipeline import Pipeline
from nas_kd.pipeline.rank_command import ranking
from nas_kd.ranking.plan import check_planned
from nas_kd.runs.files import read_json
from nas_kd.runs.lock import held
from nas_kd.searcher.group import check_running


def join_search(config: Config) -> None:
    """Score subnets for a search that is going until none are left; the run's files stay another's."""
    trained = () if config.derived else ("supernet",)
    pipeline = _joined(config, (*trained, "blockwise") if config.guided else trained)
    pipeline.check(keep=False)
    check_running(pipeline.run.path / pipeline.search_folder, config.search.storage)
    if config.guided:
        with held(pipeline.run.path / "teacher" / ".answers.lock", wait=True):  # several workers may start at once
            _ = pipeline.teaching  # opens the stored answers
    found = pipeline.searched(worker=True)
    pipeline.run.log_message(f"worker: all trials are done; {found.best.key} scores best")


def join_rank(config: Config) -> None:
    """Train archs for a ranking that is going until none are left; scoring and judging stay another's."""
    check_planned(Path(str(config.run)) / "rank")
    pipeline = _joined(config, ())
    truth = ranking(pipeline, helps=True).truth
    pipeline.run.log_message(f"worker: all {len(truth)} trainings are done")


def _joined(config: Config, stages: tuple[str, ...]) -> Pipeline:
    """Open a run that another process works in, with everything done that a worker builds on."""
    path = Path(str(config.run))
    names = (*stages, "teacher") if config.teacher.epochs else stages
    for name in names:
        file = path / name / "stage.json"
        if not file.exists() or not read_json(file, ("done",))["done"]:
            expected = f"a run whose {name} is finished: a worker trains nothing that others wait for"
            hint = "wait until it is; on another machine copy the run folder of the first"
            raise SettingError("run", str(path), expected, hint)
    return Pipeline(config)
