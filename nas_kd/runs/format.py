"""The format version of the records in run folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas_kd.errors import SettingError
from nas_kd.version import __version__

FORMAT = 2  # raised whenever records of finished work can no longer be compared with new ones


def made_with() -> dict[str, Any]:
    """Return the version and format that a record stores."""
    return {"nas_kd": __version__, "format": FORMAT}


def check_format(record: Mapping[str, Any], path: Path) -> None:
    """Raise if a record has another format.

    Args:
        record: the content of ``path``.

    Raises:
        SettingError: with both versions and formats.
    """
    made = record.get("made_with", {"nas_kd": "0.1.0", "format": 1})
    made = made if isinstance(made, Mapping) else {}
    if made.get("format") != FORMAT:
        was = f"made with nas_kd {made.get('nas_kd')} (format {made.get('format')})"
        expected = f"a record of nas_kd {__version__} (format {FORMAT}); this one was {was}"
        raise SettingError("run", str(path), expected, "use another --run")
