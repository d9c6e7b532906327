"""Paths in settings."""

from __future__ import annotations

from pathlib import Path

from nas_kd.errors import SettingError

GONE = "(deleted)"


def working_folder() -> str:
    """Return the working folder, for messages: it may have been deleted."""
    try:
        return str(Path.cwd())
    except OSError:
        return GONE


def existing(field: str, path: str | Path, expected: str) -> Path:
    """Expand ``~`` and check that the file or folder exists.

    Args:
        field: the setting, for the error message.
        expected: description of allowed values.

    Raises:
        SettingError: it does not exist.
    """
    found = Path(path).expanduser()
    try:
        there = found.exists()
    except (OSError, ValueError):  # an impossible file name
        there = False
    if not there or not str(path):
        hint = f"check the path; the working folder is {working_folder()}"
        raise SettingError(field, str(path), f"{expected}; this does not exist", hint)
    return found
