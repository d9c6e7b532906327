"""Workers run the user's script again only where a job needs something that is defined in it."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FunctionType, ModuleType
from typing import Any

MAIN = "__main__"


class _Reader(pickle.Pickler):
    """Finds out whether a value holds functions or classes of the script; tensors and arrays are passed over."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO())
        self.found = False

    def reducer_override(self, value: Any) -> Any:
        """Note what the script defines."""
        from numpy import ndarray
        from torch import Tensor

        if isinstance(value, Tensor | ndarray):
            return int, ()
        self.found |= isinstance(value, type | FunctionType) and value.__module__ == MAIN
        return NotImplemented


def needs_main(value: Any) -> bool:
    """Return whether a worker needs the script to read a value; True where it cannot be told."""
    reader = _Reader()
    try:
        reader.dump(value)
    except Exception:  # what cannot be sent at all fails again, with its own message, when it is sent
        return True
    return reader.found


@contextmanager
def main_unseen(*, needed: bool) -> Iterator[None]:
    """Let processes that are started inside not import the script: one without `if __name__ == "__main__":` would
    start all over in each of them, and one read from stdin cannot be imported.

    Args:
        needed: whether their work needs it; then nothing is done.
    """
    whole = sys.modules[MAIN]
    if not needed:
        sys.modules[MAIN] = ModuleType(MAIN)  # multiprocessing asks it for a name and a path, and it has none
    try:
        yield
    finally:
        sys.modules[MAIN] = whole
