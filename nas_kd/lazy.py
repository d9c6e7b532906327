"""Rooms that load a module with the first use of a name of it, so that their settings are read without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
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
        if name not in home:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        return getattr(import_module(f"{room}.{home[name]}"), name)

    return get, lambda: sorted(home)
