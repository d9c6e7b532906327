"""What a training keeps that may move from worker to worker: whoever takes it goes on from there."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from nas_kd.runs.files import atomic_write, on_disk
from nas_kd.runs.run import Run
from nas_kd.runs.stage import Stage


class MovingStage(Stage):
    """One training's folder: its checkpoints, and the time that went into them.

    Args:
        name: the folder below the run; its last part names the worker that has it.
        inputs: see `Stage`.
        title: the training, for messages.
    """

    def __init__(self, run: Run, name: str, inputs: Mapping[str, object], title: str) -> None:
        super().__init__(run, name, inputs)
        self.name = title
        self.earlier = (0.0, 0.0)  # seconds, by the clock and of the processor, that are in the checkpoint
        self._begun = time.perf_counter(), time.process_time()

    @property
    def spent(self) -> tuple[float, float]:
        """Seconds by the clock and of the processor so far; what a kill lost and is done again counts once."""
        now = time.perf_counter(), time.process_time()
        clock, cpu = (old + end - begun for old, end, begun in zip(self.earlier, now, self._begun, strict=True))
        return clock, cpu

    @property
    def taken(self) -> bool:
        """Whether another worker has the training now: this one was taken for lost."""
        return not self.folder.exists()

    def save(self, state: Mapping[str, Any]) -> None:
        """Write the state, unless another worker has the training."""
        try:
            super().save({**state, "spent": list(self.spent)})
        except FileNotFoundError:
            if not self.taken:
                raise

    def load(self) -> dict[str, Any] | None:
        """Read the last undamaged state and the time that went into it."""
        state = super().load()
        if state is not None:
            clock, cpu = state.pop("spent")
            self.earlier = clock, cpu
        return state

    def seconds(self, what: str, seconds: float, cpu_seconds: float) -> None:
        """Keep nothing: the time of the whole training is in its row."""

    def end(self) -> None:
        """Delete the folder of a training whose row is written; the list of skipped steps stays."""
        skipped = self.folder / "skipped.csv"
        if skipped.exists():
            kept = self.folder.parents[1] / "skipped" / f"{self.folder.stem}.csv"
            with on_disk(kept):
                kept.parent.mkdir(exist_ok=True)
            atomic_write(kept, skipped.read_bytes())
        _delete(self.folder)


class MovingStages:
    """The folders of all trainings that have begun; every call is made under the lock of the workers' leases.

    A folder is its worker's alone, by its name. A training changes hands by renaming it: a worker that was taken
    for lost and comes back then has nothing left to write into, whatever it was in the middle of.

    Args:
        place: the folder in it that they belong to.
        worker: id of this worker.
    """

    def __init__(self, run: Run, place: str, worker: str) -> None:
        self.run = run
        self.place = place
        self.folder = run.path / place / "trainings"
        self._mark = re.sub(r"[^A-Za-z0-9_-]", "_", worker)

    def take(self, key: str, seed: int, inputs: Mapping[str, object]) -> MovingStage:
        """Open the folder of a training that this worker has taken, with what another left in it.

        Args:
            key: the arch's key.
            inputs: everything else that determines the result.

        Raises:
            SettingError: it cannot be written, or its stage.json is damaged.
        """
        name = f"{key}_seed_{seed}"
        mine = self.folder / f"{name}.{self._mark}"
        with on_disk(mine):
            for old in self.folder.glob(f"{name}.*"):
                if old != mine:
                    old.rename(mine)
        facts = {"arch": key, "seed": seed} | dict(inputs)
        return MovingStage(self.run, f"{self.place}/trainings/{mine.name}", facts, f"{self.place} {name}")

    def clear(self, done: Collection[tuple[str, int]]) -> None:
        """Delete what a worker left that was killed between writing a row and deleting its folder.

        Args:
            done: (key, seed) of the rows that are written.
        """
        for key, seed in done:
            for old in self.folder.glob(f"{key}_seed_{seed}.*"):
                _delete(old)
        with suppress(OSError):  # it is not there, or trainings of further seeds are
            self.folder.rmdir()


def _delete(folder: Path) -> None:
    with on_disk(folder):
        shutil.rmtree(folder)
