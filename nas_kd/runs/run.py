"""The run folder: what was done with which inputs, what it gave, and whether it may go on."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_kd.errors import SettingError
from nas_kd.runs.files import CsvLog, atomic_json, atomic_write, clear_parts, on_disk, plain, read_frame, read_json
from nas_kd.runs.folder_lock import folder_lock
from nas_kd.runs.log import RunLog
from nas_kd.runs.stage import Stage
from nas_kd.runtime.ranks import in_worker
from nas_kd.version import __version__

if TYPE_CHECKING:
    import pandas as pd

PACKAGES = ("torch", "torchvision", "timm", "optuna", "numpy", "scipy", "pandas", "scikit-learn")


class Run(RunLog):
    """A run folder, made when absent.

    Args:
        path: the folder.

    Raises:
        SettingError: the path is a file, a folder of something else, or cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(Path(path))
        if in_worker():  # the parent has checked
            return
        check_folder(self.path)
        with on_disk(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            # a megabyte that can be written now finds a full or read-only disk before hours of work do
            probe = self.path / f".probe.{os.getpid()}.tmp"
            try:
                with open(probe, "wb") as file:
                    file.write(bytes(2**20))
                    file.flush()
                    os.fsync(file.fileno())
            finally:
                probe.unlink(missing_ok=True)
        self.record_env({})
        if not self.timing.columns:  # here and not with the first row: workers may write that one together
            atomic_write(self.timing.path, "stage,what,seconds,cpu_seconds\n")

    @staticmethod
    def of(run: str | Path | Run | None) -> Run | None:
        """Take what users give as ``run=``.

        Args:
            run: a folder, a Run, or None for work that leaves no files.

        Returns:
            The Run, or None.
        """
        return run if run is None or isinstance(run, Run) else Run(run)

    def stage(self, name: str, inputs: Mapping[str, object]) -> Stage:
        """Open a stage's folder; see `Stage`.

        Args:
            name: the folder below the run.
            inputs: everything that determines the stage's result.

        Returns:
            The stage, perhaps already done.

        Raises:
            SettingError: the folder holds results of other inputs.
        """
        return Stage(self, name, inputs)

    def latency(self, row: Mapping[str, Any]) -> None:
        """Add a row to latency.csv, apart from results because it is never the same twice.

        Args:
            row: column to scalar, units in the column names.
        """
        CsvLog(self.path / "latency.csv").append(row)

    def record_config(self, text: str) -> None:
        """Keep the resolved configuration as config.yaml.

        Args:
            text: YAML that gives the same run again.
        """
        atomic_write(self.path / "config.yaml", text)

    def config_text(self) -> str | None:
        """Return config.yaml; None before it is recorded."""
        path = self.path / "config.yaml"
        return path.read_text() if path.exists() else None

    def record_space(self, space: Mapping[str, Any]) -> None:
        """Keep the search space as space.json.

        Args:
            space: its name, hash and description in plain values.

        Raises:
            SettingError: the run was made in another space.
        """
        self._record("space", self.path / "space.json", plain(space))

    def record_teacher(self, teacher: Mapping[str, Any]) -> None:
        """Keep which network teaches as teacher/teacher.json.

        Args:
            teacher: its name and fingerprint.

        Raises:
            SettingError: another network taught in this run.
        """
        with on_disk(self.path):
            (self.path / "teacher").mkdir(exist_ok=True)
        self._record("teacher", self.path / "teacher" / "teacher.json", plain(teacher))

    def _record(self, what: str, path: Path, given: dict[str, Any]) -> None:
        """Keep a description, or refuse another than the one kept."""
        if not path.exists():
            atomic_json(path, given)
            return
        old = read_json(path, spoils=path)
        changed = [key for key in {**old, **given} if old.get(key) != given.get(key)]
        if changed:
            expected = f"the {what} of {self.path}: {old.get('name')!r} (changed: {', '.join(changed)})"
            raise SettingError(what, given.get("name"), expected, "use another --run")

    def record_data(self, frame: pd.DataFrame) -> None:
        """Keep the list of images, labels and splits as data.csv.

        Args:
            frame: one row an image.

        Raises:
            SettingError: the run was made with other data.
        """
        path = self.path / "data.csv"
        text = frame.to_csv(index=False)
        if not path.exists():
            atomic_write(path, text)
        elif path.read_text() != text:
            expected = f"the images, labels and splits listed in {path}{_difference(frame, path)}"
            raise SettingError("data", f"{len(frame)} images", expected, "use another --run, or the data of then")

    def record_env(self, env: Mapping[str, Any]) -> None:
        """Keep versions, processor, device and threads as env.json; warn by one line when they changed.

        Args:
            env: what to add to the versions, such as `nas_kd.runtime.Runtime.env`.
        """
        if in_worker():
            return
        path = self.path / "env.json"
        now = plain({**versions(), **env})
        old = read_json(path, spoils=path) if path.exists() else {}
        changed = [f"{key} {old[key]} -> {now[key]}" for key in now if key in old and old[key] != now[key]]
        if changed:
            began = f"{self.path} began with other versions: {', '.join(changed)}"
            self.log_message(f"warning: numbers may differ in their last digits, {began}")
        if now.keys() - old.keys():
            atomic_json(path, {**now, **old})

    @contextmanager
    def locked(self, part: str | None = None) -> Iterator[None]:
        """Keep other commands from working in the folder meanwhile, and clear what a killed one left.

        Args:
            part: a job that goes together with others in the folder, but not with itself; None goes alone.

        Raises:
            SettingError: another command is working in the folder.
        """
        with folder_lock(self.path, part, self.log_message):
            if part is None:  # else others may be writing; processes of a ranking are not under this lock
                ranking = self.path / "rank"
                clear_parts([path for path in self.path.rglob(".*") if ranking not in path.parents])
            yield


def _difference(frame: pd.DataFrame, path: Path) -> str:
    """Say what is not as in data.csv."""
    try:
        old, new = ({row[0]: row[1:] for row in table.astype(str).values} for table in (read_frame(path), frame))
    except (SettingError, IndexError):
        return ""
    parts = []
    for what, names in (
        ("new", [name for name in new if name not in old]),
        ("missing", [name for name in old if name not in new]),
        ("of another label or split", [n for n in new if n in old and list(new[n]) != list(old[n])]),
    ):
        if names:
            parts.append(f"{len(names)} {what}, such as {names[0]}")
    return f" ({'; '.join(parts)})" if parts else ""


def check_folder(path: Path) -> None:
    """Check that a path may become, or is, a run folder.

    Args:
        path: the folder.

    Raises:
        SettingError: it is a file or holds something else.
    """
    expected = "a new or empty folder, or one that nas_kd made"
    above = next((folder for folder in path.absolute().parents if folder.exists()), path)
    if not above.is_dir() or "\0" in str(path):
        raise SettingError("run", str(path), f"{expected} (no folder can be there)", "use another --run")
    if path.exists() and not path.is_dir():
        raise SettingError("run", str(path), f"{expected} (this is a file)", "use another --run")
    if path.is_dir() and any(not entry.name.startswith(".") for entry in path.iterdir()):
        env = path / "env.json"
        made = env.is_file() and "nas_kd" in read_json(env, spoils=env)
        made = made or (path / "rank" / "plan.json").is_file()  # a ranking that was begun on another machine
        if not made and not all((path / name).is_file() for name in ("config.yaml", "space.json", "data.csv")):
            raise SettingError("run", str(path), f"{expected} (this holds other files)", "use another --run")


def versions() -> dict[str, str | int | None]:
    """Name the machine and the versions that numbers depend on, without importing them."""
    found: dict[str, str | int | None] = {"nas_kd": __version__}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    return {
        **found,
        "python": platform.python_version(),
        "system": platform.system(),
        "cpu": cpu,
        "cores": os.cpu_count(),
    }
