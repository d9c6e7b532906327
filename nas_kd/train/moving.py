"""Checkpoint folders of trainings that another worker can take over and resume."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from nas_kd.config.reading import TABLE, read_bytes
from nas_kd.runs.files import atomic_write, on_disk
from nas_kd.runs.run import Run
from nas_kd.runs.stage import Stage


class MovingStage(Stage):
    """The folder of one training: its checkpoints, and the time spent on them.

    Args:
        name: the folder inside the run; its last part ends with the worker's id.
        title: name of the training, for messages.
    """

    def __init__(self, run: Run, name: str, inputs: Mapping[str, object], title: str) -> None:
        super().__init__(run, name, inputs)
        self.name = title
        self.earlier = (0.0, 0.0)  # wall and CPU seconds up to the checkpoint
        self._begun = time.perf_counter(), time.process_time()

    @property
    def spent(self) -> tuple[float, float]:
        """Wall and CPU seconds so far; work that is repeated after a kill counts once."""
        now = time.perf_counter(), time.process_time()
        clock, cpu = (old + end - begun for old, end, begun in zip(self.earlier, now, self._begun, strict=True))
        return clock, cpu

    @property
    def taken_over(self) -> bool:
        """Whether another worker has taken over, because this one was considered lost."""
        return not self.folder.exists()

    def save(self, state: Mapping[str, Any]) -> None:
        """Write a checkpoint, unless another worker has taken over."""
        try:
            super().save({**state, "spent": list(self.spent)})
        except FileNotFoundError:
            if not self.taken_over:
                raise

    def load(self) -> dict[str, Any] | None:
        """Read the latest undamaged checkpoint and the time spent on it."""
        state = super().load()
        if state is not None:
            clock, cpu = state.pop("spent")
            self.earlier = clock, cpu
        return state

    def seconds(self, what: str, seconds: float, cpu_seconds: float) -> None:
        """Do nothing: the time of the whole training is in its row."""

    def end(self) -> None:
        """Delete the folder after its row is written, but keep the list of skipped steps."""
        skipped = self.folder / "skipped.csv"
        if skipped.exists():
            kept = self.folder.parents[1] / "skipped" / f"{self.folder.stem}.csv"
            with on_disk(kept):
                kept.parent.mkdir(exist_ok=True)
            atomic_write(kept, read_bytes(skipped, TABLE))
        _delete(self.folder)


class MovingStages:
    """The folders of all trainings that were started; every method is called under the lock of the workers' leases.

    The name of a folder includes its worker. A training is taken over by renaming it, so that a worker that was
    wrongly considered lost cannot write to it any more.

    Args:
        place: their parent folder in the run.
        worker: id of this worker.
    """

    def __init__(self, run: Run, place: str, worker: str) -> None:
        self.run = run
        self.place = place
        self.folder = run.path / place / "trainings"
        self._mark = re.sub(r"[^A-Za-z0-9_-]", "_", worker)

    def take(self, key: str, seed: int, inputs: Mapping[str, object]) -> MovingStage:
        """Open the folder of a training that this worker has claimed, with what another worker left in it.

        Args:
            key: key of the arch.
            inputs: everything else that determines the result.

        Raises:
            SettingError: it is not writable, or its stage.json is damaged.
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
        """Delete folders of finished trainings, given as (key, seed), whose worker was killed before deleting them."""
        for key, seed in done:
            for old in self.folder.glob(f"{key}_seed_{seed}.*"):
                _delete(old)
        with suppress(OSError):  # it is missing or not empty
            self.folder.rmdir()


def _delete(folder: Path) -> None:
    with on_disk(folder):
        shutil.rmtree(folder)
