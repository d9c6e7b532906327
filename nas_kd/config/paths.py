"""Paths that settings name."""

from __future__ import annotations

from pathlib import Path

from nas_kd.errors import SettingError


def existing(field: str, path: str | Path, expected: str) -> Path:
    """Check that a path leads somewhere.

    Args:
        field: the setting, for the message.
        path: the file or folder; ``~`` is the user's home.
        expected: the allowed values in words.

    Raises:
        SettingError: nothing is there.
    """
    found = Path(path).expanduser()
    try:
        there = found.exists()
    except (OSError, ValueError):  # no file can be called so
        there = False
    if not there or not str(path):
        hint = f"check the path; the working folder is {Path.cwd()}"
        raise SettingError(field, str(path), f"{expected}; this does not exist", hint)
    return found
