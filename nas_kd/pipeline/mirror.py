"""What a run has written, handed on to trackers of experiments: its files stay the truth."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nas_kd.analyse import frames
from nas_kd.analyse.story import headline
from nas_kd.config.nouns import spoken
from nas_kd.errors import SettingError
from nas_kd.runs.files import atomic_json, read_json
from nas_kd.runs.run import Run

if TYPE_CHECKING:
    from lightning_fabric.loggers.logger import Logger

FOLDER = "track"  # in the run
SENT = "sent.json"
EVERY = 20.0  # seconds between two looks at the files
STEPS = {"metrics.csv": "epoch", "trials.csv": "number"}  # files whose rows are handed on, and what counts them


class Mirror:
    """Hands the rows of a run's tables to a tracker as they come, each once, also when the run goes on another day.

    Args:
        run: the run.
        name: the tracker's.
    """

    def __init__(self, run: Run, name: str) -> None:
        from nas_kd.pipeline.trackers import TRACKERS  # late: Fabric's loggers take a second and a half to import

        self.run = run
        self.kind = TRACKERS[name]
        self.folder = run.path / FOLDER / name
        sent = self.folder / SENT
        self.sent: dict[str, int] = dict(read_json(sent)) if sent.exists() else {}
        self._sizes: dict[str, int] = {}
        self._failed = False
        self.logger: Logger = self.kind.open(self.folder, run.path.resolve().name)

    def update(self) -> None:
        """Hand on all rows that are new."""
        for path in sorted(self.run.path.rglob("*.csv")):
            step = STEPS.get(path.name)
            name = path.relative_to(self.run.path).as_posix()
            if step is None or name.startswith(FOLDER):
                continue
            size = path.stat().st_size
            if self._sizes.get(name) == size:
                continue
            rows = frames.table(path)
            if step in rows:
                stage = path.parent.relative_to(self.run.path).as_posix()
                stage += "" if step == "epoch" else "/trials"
                for row in rows.iloc[self.sent.get(name, 0) :].to_dict("records"):
                    if values := _numbers(row, stage, step):
                        self.logger.log_metrics(values, int(row[step]))
                self.sent[name] = len(rows)
            self._sizes[name] = size
        self.logger.save()
        self.folder.mkdir(parents=True, exist_ok=True)
        atomic_json(self.folder / SENT, self.sent)

    def close(self, status: str) -> None:
        """Hand on the rest, the report if it is there, and the end."""
        self.update()
        report = self.run.path / "report"
        if (report / "report.html").exists():
            lines = [line for search in frames.searches(self.run) for line in headline(self.run.path, search)]
            words = [spoken(line, frames.of_texts(self.run)) for line in lines]
            self.kind.show(self.logger, report, words)
        self.logger.finalize(status)


@contextmanager
def tracked(run: Run, names: Sequence[str], settings: Mapping[str, Any]) -> Iterator[None]:
    """Let trackers follow a run while a command works in it.

    A tracker that fails, as by a network that is gone, is left out with a message; the work goes on.

    Args:
        run: the run.
        names: of the trackers.
        settings: nested dictionaries.
    """
    mirrors = [_opened(run, name) for name in names]
    looked = time.monotonic()
    lock = threading.Lock()

    def each(do: Callable[[Mirror], None]) -> None:
        for mirror in [*mirrors]:
            try:
                do(mirror)
            except Exception as error:  # whatever a tracker raises
                mirrors.remove(mirror)
                run.log_message(f"warning: log={mirror.kind.name} is left out: {type(error).__name__}: {error}")

    def look() -> None:
        nonlocal looked
        with lock:
            if time.monotonic() - looked >= EVERY:
                looked = time.monotonic()
                each(Mirror.update)

    each(lambda mirror: mirror.logger.log_hyperparams(_flat(settings)))
    if mirrors:
        run.watchers.append(look)
    status = "failed"
    try:
        yield
        status = "success"
    finally:
        run.watchers.clear()
        each(lambda mirror: mirror.close(status))


def _opened(run: Run, name: str) -> Mirror:
    try:
        return Mirror(run, name)
    except SettingError:
        raise
    except Exception as error:  # whatever a tracker raises
        expected = f"a tracker that can be opened ({type(error).__name__}: {' '.join(str(error).split())[:300]})"
        raise SettingError("log", name, expected, "mend what it says, or leave it out") from error


def _numbers(row: Mapping[Any, Any], stage: str, step: str) -> dict[str, float]:
    """Return the finite numbers of a row by their names under the stage."""
    given = {f"{stage}/{name}": value for name, value in row.items() if name != step and not str(name).startswith("i_")}
    numbers = {n: float(v) for n, v in given.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found
