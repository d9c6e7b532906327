"""The files of a student folder: their names, what reads the plain ones, and the atomic writing of all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from nas_kd.config.reading import parsed, read_text
from nas_kd.errors import SettingError
from nas_kd.runs.files import on_disk, plain
from nas_kd.runs.links import create, part_of, remove

FORMAT = 1  # increased when an older load_student can no longer read the folder
ARCH = "arch.json"
ABOUT = "student.json"
WEIGHTS = "weights.safetensors"
EXPORTS = "export"  # folder of its exports
CARD = "README.md"
ENV = "env.json"


def student_about(folder: Path) -> dict[str, Any]:
    """Read the description in a student folder: ``.info`` of its network.

    Raises:
        SettingError: the file is missing, damaged or written by a newer version.
    """
    about = read_part(folder / ABOUT)
    version = about.pop("format_version", None) if isinstance(about, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise SettingError("student", str(folder / ABOUT), "a file with a format_version", "save it again")
    if version > FORMAT:
        expected = f"format_version of at most {FORMAT}; this folder has {version}"
        raise SettingError("student", str(folder), expected, "pip install --upgrade nas_kd")
    _check_about(about, folder / ABOUT)
    return dict(about)


def _check_about(about: Mapping[str, Any], path: Path) -> None:
    """Check the entries of ``.info`` that other code relies on."""
    mean, std, channels = (about.get(name) for name in ("mean", "std", "in_chans"))
    listed = isinstance(mean, list | None) and isinstance(std, list | None)
    numbers = [*(mean or []), *(std or [])] if listed else []
    ok = {
        "mean": listed and all(isinstance(value, int | float) for value in numbers),
        "std": listed and len(mean or []) == len(std or []),
        "in_chans": isinstance(channels, int | None) and (not mean or not listed or channels in (None, len(mean))),
        "classes": isinstance(about.get("classes"), list | None),
        "factory_kwargs": isinstance(about.get("factory_kwargs"), dict | None),
    }
    for name, valid in ok.items():
        if not valid:
            expected = f"a file written by save_student; {name} is {str(about.get(name))[:60]!r}"
            raise SettingError("student", str(path), expected, "save the student again")


def as_text(value: Any) -> bytes:
    """Return a value as the JSON of a student folder."""
    return (json.dumps(plain(value), indent=1, allow_nan=False) + "\n").encode()


def read_part(path: Path) -> Any:
    """Read a JSON file of a student folder.

    Raises:
        SettingError: it is missing or damaged.
    """
    content = read_text(path, field="student", hint="save the student again")
    try:
        return parsed(content)
    except ValueError as error:
        raise SettingError("student", str(path), "undamaged JSON", "save the student again") from error


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a temporary folder and rename it, so that a kill leaves no partial folder."""
    part, old = part_of(folder), part_of(folder, "old")
    with on_disk(folder):
        try:
            for left in (part, old):
                remove(left)
            part.mkdir(parents=True)
            for name, content in files.items():
                with create(part / name) as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            if folder.exists():
                os.replace(folder, old)
            os.replace(part, folder)
        except OSError:
            if old.exists() and not folder.exists():
                os.replace(old, folder)
            raise
        finally:
            for left in (part, old):
                with suppress(OSError):  # an error of the writing must not be hidden
                    remove(left)
