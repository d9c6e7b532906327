"""Modules that a user names: of the Python path, or beside where the command was called."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

_used: list[str] = []  # folders that were not on the Python path, and that modules of a user came from


def import_of_user(name: str) -> ModuleType:
    """Import a module that the user has named.

    Args:
        name: of the Python path, or of the working folder, which comes last: a user's file does not shadow an
            installed package.

    Raises:
        ImportError: there is none.
    """
    here = str(Path.cwd())
    if here in sys.path:  # where the user has put it
        return import_module(name)
    known = {*sys.modules}
    sys.path.append(here)
    try:
        return import_module(name)
    finally:
        sys.path.remove(here)
        files = (getattr(sys.modules.get(new), "__file__", None) for new in {*sys.modules} - known)
        if here not in _used and any(file is not None and Path(file).is_relative_to(here) for file in files):
            _used.append(here)


def folders_of_user() -> tuple[str, ...]:
    """Return the folders beside the Python path that modules of a user came from: a worker imports from them too."""
    return tuple(_used)
