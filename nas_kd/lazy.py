"""Rooms that load a module with the first use of a name of it, so that their settings are read without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def lazy(room: str, home: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make ``__getattr__`` and ``__dir__`` of a room, as PEP 562 has them.

    Args:
        room: its ``__name__``.
        home: public name to the module that defines it, in the room.

    Returns:
        The two functions.
    """

    def get(name: str) -> Any:
        if name in home:
            return getattr(import_module(f"{room}.{home[name]}"), name)
        if name.startswith("_") or find_spec(f"{room}.{name}") is None:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        return import_module(f"{room}.{name}")  # `nas_kd.rate.scores` without an import of its own

    return get, lambda: sorted(home)
