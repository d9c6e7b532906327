"""The run folder: inputs and results of its stages, and whether it can be resumed."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_kd.config.file import LARGEST
from nas_kd.config.kinds import checked
from nas_kd.config.reading import TABLE, read_text
from nas_kd.errors import SettingError
from nas_kd.runs.files import CsvLog, atomic_json, atomic_write, clear_parts, on_disk, plain, read_frame, read_json
from nas_kd.runs.folder_lock import folder_lock
from nas_kd.runs.links import create, is_part, part_of, refuse_links
from nas_kd.runs.log import RunLog
from nas_kd.runs.stage import Stage
from nas_kd.runtime.ranks import in_worker
from nas_kd.version import __version__

if TYPE_CHECKING:
    import pandas as pd

PACKAGES = ("torch", "torchvision", "timm", "optuna", "numpy", "scipy", "pandas", "scikit-learn")


class Run(RunLog):
    """A run folder, created if missing.

    Raises:
        SettingError: the path is a file, holds something else, or is not writable.
    """

    @checked
    def __init__(self, path: str | Path) -> None:
        super().__init__(Path(path))
        if in_worker():  # the parent has checked
            return
        check_folder(self.path)
        with on_disk(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            # writing a megabyte finds a full or read-only disk now rather than after hours of work
            probe = part_of(self.path / "probe")
            try:
                with create(probe) as file:
                    file.write(bytes(2**20))
                    file.flush()
                    os.fsync(file.fileno())
            finally:
                probe.unlink(missing_ok=True)
        self.record_env({})
        if not self.timing.columns:  # not with the first row, which several workers may write at the same time
            atomic_write(self.timing.path, "stage,what,seconds,cpu_seconds\n")

    @staticmethod
    def of(run: str | Path | Run | None) -> Run | None:
        """Convert the argument ``run=`` of public functions; None writes no files."""
        return run if run is None or isinstance(run, Run) else Run(run)

    def stage(self, name: str, inputs: Mapping[str, object], grows: Sequence[str] = ()) -> Stage:
        """Open a stage's folder; see `Stage`.

        Args:
            name: the folder inside the run.
            inputs: everything that determines the stage's result.
            grows: inputs that say how many; a larger number goes on from what is there.

        Raises:
            SettingError: the folder holds results of other inputs.
        """
        return Stage(self, name, inputs, grows)

    def latency(self, row: Mapping[str, Any]) -> None:
        """Append a row to latency.csv, separate from results because it is never the same twice.

        Args:
            row: column to scalar, with units in the column names.
        """
        CsvLog(self.path / "latency.csv").append(row)

    def record_config(self, text: str) -> None:
        """Write the resolved configuration, as YAML that reproduces the run, to config.yaml."""
        atomic_write(self.path / "config.yaml", text)

    def config_text(self) -> str | None:
        """Return the content of config.yaml; None before it is written."""
        path = self.path / "config.yaml"
        return read_text(path, LARGEST) if path.exists() else None

    def record_space(self, space: Mapping[str, Any]) -> None:
        """Record the search space in space.json.

        Args:
            space: its name, hash and description.

        Raises:
            SettingError: the run used another space.
        """
        self._record("space", self.path / "space.json", plain(space))

    def record_teacher(self, teacher: Mapping[str, Any]) -> None:
        """Record the teacher in teacher/teacher.json.

        Args:
            teacher: its name and fingerprint.

        Raises:
            SettingError: the run used another teacher.
        """
        with on_disk(self.path):
            (self.path / "teacher").mkdir(exist_ok=True)
        self._record("teacher", self.path / "teacher" / "teacher.json", plain(teacher))

    def _record(self, what: str, path: Path, given: dict[str, Any]) -> None:
        """Write a description, or raise if another one was written before."""
        if not path.exists():
            atomic_json(path, given)
            return
        old = read_json(path, delete=path)
        changed = [key for key in {**old, **given} if old.get(key) != given.get(key)]
        if changed:
            expected = f"the {what} of {self.path}: {old.get('name')!r} (changed: {', '.join(changed)})"
            raise SettingError(what, given.get("name"), expected, "use another --run")

    def record_data(self, frame: pd.DataFrame) -> None:
        """Record images, labels and splits in data.csv.

        Args:
            frame: one row per image.

        Raises:
            SettingError: the run used other data.
        """
        path = self.path / "data.csv"
        text = frame.to_csv(index=False)
        if not path.exists():
            atomic_write(path, text)
        elif read_text(path, TABLE) != text:
            expected = f"the images, labels and splits listed in {path}{_difference(frame, path)}"
            raise SettingError("data", f"{len(frame)} images", expected, "use another --run, or the original data")

    def record_env(self, env: Mapping[str, Any]) -> None:
        """Record versions, processor, device and threads in env.json; log one warning if they changed.

        Args:
            env: added to the versions, such as `nas_kd.runtime.Runtime.env`.
        """
        if in_worker():
            return
        path = self.path / "env.json"
        now = plain({**versions(), **env})
        old = read_json(path, delete=path) if path.exists() else {}
        changed = [f"{key} {old[key]} -> {now[key]}" for key in now if key in old and old[key] != now[key]]
        if changed:
            started = f"{self.path} was started with other versions: {', '.join(changed)}"
            self.log_message(f"warning: results may differ in their last digits, {started}")
        if now.keys() - old.keys():
            atomic_json(path, {**now, **old})

    @contextmanager
    def locked(self, part: str | None = None) -> Iterator[None]:
        """Keep other commands from using the folder, and delete the unfinished files of killed ones.

        Args:
            part: a job that may run beside other jobs in the folder, but only once; None excludes all others.

        Raises:
            SettingError: another command is using the folder.
        """
        with folder_lock(self.path, part, self.log_message):
            if part is None:  # else others may be writing; rankings do not take this lock
                ranking = self.path / "rank"
                clear_parts([path for path in self.path.rglob(".*") if ranking not in path.parents])
            yield


def _difference(frame: pd.DataFrame, path: Path) -> str:
    """Describe how a frame differs from data.csv."""
    try:
        old, new = ({row[0]: row[1:] for row in table.astype(str).values} for table in (read_frame(path), frame))
    except (SettingError, IndexError):
        return ""
    parts = []
    for what, names in (
        ("new", [name for name in new if name not in old]),
        ("missing", [name for name in old if name not in new]),
        ("with another label or split", [n for n in new if n in old and list(new[n]) != list(old[n])]),
    ):
        if names:
            parts.append(f"{len(names)} {what}, such as {names[0]}")
    return f" ({'; '.join(parts)})" if parts else ""


def is_run(path: Path) -> bool:
    """Return whether a folder is that of a run, by what is in it."""
    env = path / "env.json"
    try:
        return env.is_file() and "nas_kd" in read_json(env)
    except (SettingError, TypeError):  # another file of this name
        return False


def check_folder(path: Path) -> None:
    """Check that a path is a run folder or can become one.

    Raises:
        SettingError: it is a file, holds something else, or a link below it leads elsewhere.
    """
    expected = "a new or empty folder, or one that nas_kd created"
    above = next((folder for folder in path.absolute().parents if folder.exists()), path)
    if not above.is_dir() or "\0" in str(path):
        raise SettingError("run", str(path), f"{expected} (no folder can be created there)", "use another --run")
    if path.exists() and not path.is_dir():
        raise SettingError("run", str(path), f"{expected} (this is a file)", "use another --run")
    found = sorted(name for name in os.listdir(path) if not is_part(name)) if path.is_dir() else []
    if found:
        env = path / "env.json"
        made = env.is_file() and "nas_kd" in read_json(env, delete=env)
        made = made or (path / "rank" / "plan.json").is_file()  # a ranking that was started on another machine
        if not made and not all((path / name).is_file() for name in ("config.yaml", "space.json", "data.csv")):
            more = f" and {len(found) - 3} more" if len(found) > 3 else ""
            held = f"this holds other files: {', '.join(found[:3])}{more}"
            raise SettingError("run", str(path), f"{expected} ({held})", "use another --run")
        refuse_links(path)


def versions() -> dict[str, str | int | None]:
    """Return the machine and the package versions on which results depend, without importing the packages."""
    found: dict[str, str | int | None] = {"nas_kd": __version__}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.partition(":")[2].strip()
            for line in info.read_text(encoding="utf-8", errors="replace").splitlines()
            if "model name" in line
        ]
        cpu = names[0] if names else cpu
    return {
        **found,
        "python": platform.python_version(),
        "system": platform.system(),
        "cpu": cpu,
        "cores": os.cpu_count(),
    }
