"""The folder of one stage in a run: its inputs, its checkpoint while it runs, its facts when it is done."""

from __future__ import annotations

import io
import json
import pickle
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_kd.errors import SettingError
from nas_kd.runs.files import CsvLog, atomic_json, atomic_write, clear_parts, on_disk, plain, read_frame, read_json
from nas_kd.runs.format import check_format, made_with
from nas_kd.runs.log import RunLog

if TYPE_CHECKING:
    import pandas as pd

ORDER = ("teacher", "supernet", "blockwise", "search", "retrain", "rank", "report")

LAST = "last.pt"
PREVIOUS = "previous.pt"
DAMAGE = (  # raised by readers of zip and pickle on damaged files
    OSError,
    RuntimeError,
    EOFError,
    ValueError,
    KeyError,
    NotImplementedError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
)


def _read_state(path: Path) -> dict[str, Any]:
    """Read what `Stage.save` wrote, and verify the checksums, which torch writes but does not check."""
    import torch

    with zipfile.ZipFile(path) as file:
        if (bad := file.testzip()) is not None:
            raise zipfile.BadZipFile(f"wrong checksum of {bad}")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


# of what a stage was made with, where the name does not say what differs
MEANING = {
    "data": " (other pixels, names or splits)",
    "start": " (other weights to begin with, as by another seed, retrain.init, repair.epochs or repair.student_epochs)",
}


class Stage:
    """The folder of one stage: its inputs, its checkpoint while it runs, its facts when it is done.

    Created by `Run.stage`.

    Args:
        name: the folder inside the run, such as ``"supernet"`` or ``"retrain/1a2b3c/seed_0"``.
        inputs: everything that determines the result, as plain values.
        grows: inputs that say how many. With a larger number a finished stage is open again, with all it has; with a
            smaller one only an unfinished stage goes on.

    Raises:
        SettingError: the folder holds results of other inputs, or has more than what is asked for.
    """

    def __init__(self, run: RunLog, name: str, inputs: Mapping[str, object], grows: Sequence[str] = ()) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*", name) or ".." in name:
            raise ValueError(f"stage name {name!r}: expected letters, digits, '_', '-', '.', separated by '/'")
        self.run = run
        self.name = name
        self.folder = run.path / name
        self._file = self.folder / "stage.json"
        given = json.loads(json.dumps(plain(inputs)))
        if self._file.exists():
            self._state: dict[str, Any] = read_json(self._file, ("inputs", "done", "facts"))
            check_format(self._state, self._file)
            old = self._state["inputs"]
            numbers = {key: given[key] for key in grows if key in old and key in given and old[key] != given[key]}
            self._refuse_changes(old | numbers, given)
            if numbers:
                self._grow(old, numbers)
        else:
            self._state = {"made_with": made_with(), "inputs": given, "done": False, "facts": {}}
            with on_disk(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
            atomic_json(self._file, self._state)
        clear_parts(self.folder.iterdir())
        self.metrics = CsvLog(self.folder / "metrics.csv")

    def _grow(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        """Take other numbers of how many, unless the stage is finished with more."""
        for name, number in new.items():
            if self.done and number < old[name]:
                expected = f"at least {old[name]}, as {self.folder} has: what was found there is kept"
                raise SettingError(name, number, expected, f"use {name}={old[name]} or more, or another --run")
        words = ", ".join(f"{name} {old[name]} -> {number}" for name, number in new.items())
        self.run.log_message(f"{self.name} goes on: {words}")
        self._state |= {"inputs": {**old, **new}, "done": False, "facts": {}}
        atomic_json(self._file, self._state)

    def _refuse_changes(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        missing = object()
        changed = [key for key in {**old, **new} if old.get(key, missing) != new.get(key, missing)]
        if not changed:
            return
        was = ", ".join(f"{key}={old[key]!r}" if key in old else f"no {key}" for key in changed)
        now = ", ".join(f"{key}={new[key]!r}" if key in new else f"no {key}" for key in changed)
        first = self.name.split("/")[0]
        # results after a search are stored by arch and stay valid
        later = ORDER[ORDER.index(first) + 1 :] if first in ORDER[: ORDER.index("search")] else ()
        after = [self.run.path / name for name in later]
        stale = [str(folder) for folder in (self.folder, *after) if folder.exists()]
        meant = "".join(said for key, said in MEANING.items() if key in changed)
        raise SettingError(
            ", ".join(changed),
            now,
            f"what {self.folder} was made with: {was}{meant}",
            f"use another --run, or delete {' and '.join(stale)}",
        )

    @property
    def inputs(self) -> dict[str, Any]:
        """The recorded inputs."""
        return dict(self._state["inputs"])

    @property
    def done(self) -> bool:
        """Whether `finish` was called."""
        return bool(self._state["done"])

    @property
    def facts(self) -> dict[str, Any]:
        """The argument of `finish`; empty before."""
        return dict(self._state["facts"])

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Mark the stage done.

        Args:
            facts: its result in plain values, for later stages.

        Raises:
            SettingError: the disk is full or read-only.
        """
        self._state |= {"done": True, "facts": plain(facts)}
        atomic_json(self._file, self._state)
        (self.folder / PREVIOUS).unlink(missing_ok=True)

    def log(self, name: str) -> CsvLog:
        """Open another append-only CSV file of this stage.

        Args:
            name: file name, such as ``"trials.csv"``.
        """
        return CsvLog(self.folder / name)

    def write_frame(self, name: str, frame: pd.DataFrame) -> None:
        """Write a table as CSV, atomically, without its index; floats are written by repr."""
        atomic_write(self.folder / name, frame.to_csv(index=False))

    def read_frame(self, name: str) -> pd.DataFrame:
        """Read a table of this stage exactly as it was written; a missing one is empty until the stage is done.

        Raises:
            SettingError: the file is damaged, or missing in a finished stage.
        """
        path = self.folder / name
        if self.done and not path.exists():
            hint = f"delete {self.folder} and run the same command again"
            raise SettingError("run", str(path), "the table of a finished stage", hint)
        return read_frame(path)

    def save(self, state: Mapping[str, Any]) -> None:
        """Write a checkpoint to last.pt, and keep the one before it as previous.pt.

        Args:
            state: tensors, plain values and containers of them, as ``weights_only=True`` can read.

        Raises:
            SettingError: the disk is full or read-only; existing files are untouched.
        """
        import torch

        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        atomic_write(self.folder / LAST, buffer.getbuffer(), keep=self.folder / PREVIOUS)

    def load(self) -> dict[str, Any] | None:
        """Read the latest undamaged checkpoint onto the CPU; None if nothing was saved.

        Raises:
            SettingError: all checkpoints are damaged.
        """
        damaged: list[tuple[Path, Exception]] = []
        for path in (self.folder / LAST, self.folder / PREVIOUS):
            if not path.exists():
                continue
            try:
                state = _read_state(path)
            except DAMAGE as error:
                damaged.append((path, error))
                continue
            for bad, _ in damaged:
                self.run.log_message(f"warning: {bad} is damaged: {self.name} resumes from {path}")
                bad.unlink()
            return state
        if damaged:
            hint = f"delete {self.folder}: the stage then starts over"
            expected = "an undamaged checkpoint"
            raise SettingError("run", str(damaged[0][0]), expected, hint) from damaged[0][1]
        return None

    def forget(self) -> None:
        """Delete the checkpoints, which a finished stage does not need."""
        for name in (LAST, PREVIOUS):
            (self.folder / name).unlink(missing_ok=True)

    def seconds(self, what: str, seconds: float, cpu_seconds: float) -> None:
        """Append a row to the run's timing.csv.

        Args:
            what: the timed work, such as ``"epoch"``.
            seconds: wall time.
            cpu_seconds: CPU time of this process with all its threads.
        """
        row = {"stage": self.name, "what": what, "seconds": float(seconds), "cpu_seconds": float(cpu_seconds)}
        self.run.timing.append(
            {name: row[name] for name in self.run.timing.columns}
        )  # the columns the run was started with
