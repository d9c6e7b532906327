"""Paths in settings."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from nas_kd.errors import SettingError

GONE = "(deleted)"
STUDENT = ("arch.json", "student.json")  # of a student folder
TOKENIZER = "tokenizer"  # folder in that of a text student


def working_folder() -> str:
    """Return the working folder, for messages: it may have been deleted."""
    try:
        return str(Path.cwd())
    except OSError:
        return GONE


def transformers_about(path: str | Path) -> dict[str, Any] | None:
    """Return the config.json of a folder that the transformers library saved; None where it is none."""
    folder = Path(path).expanduser()
    try:
        if any((folder / name).is_file() for name in STUDENT):
            return None
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("model_type"), str) else None


def tokenizer_of(path: str | Path) -> str | None:
    """Return the folder of a text teacher's tokenizer; None where a path is none of such a teacher."""
    folder = Path(path).expanduser()
    if transformers_about(folder) is not None:
        return str(folder)
    return str(folder / TOKENIZER) if (folder / TOKENIZER).is_dir() else None


def existing(field: str, path: str | Path, expected: str) -> Path:
    """Expand ``~`` and check that the file or folder exists.

    Args:
        field: the setting, for the error message.
        expected: description of allowed values.

    Raises:
        SettingError: it does not exist.
    """
    found = Path(os.path.expanduser(path))  # where Path's own ends with an error for a user that does not exist
    try:
        there = found.exists()
    except (OSError, ValueError):  # an impossible file name
        there = False
    if not there or not str(path):
        hint = f"check the path; the working folder is {working_folder()}"
        raise SettingError(field, str(path), f"{expected}; this does not exist", hint)
    return found
