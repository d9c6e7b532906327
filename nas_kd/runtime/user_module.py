"""Modules that a user names: of the Python path, or beside where the command was called."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType


def import_of_user(name: str) -> ModuleType:
    """Import a module that the user has named.

    Args:
        name: of the Python path, or of the working folder, which comes last: a user's file does not shadow an
            installed package.

    Raises:
        ImportError: there is none.
    """
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        return import_module(name)
    finally:
        sys.path.remove(here)
