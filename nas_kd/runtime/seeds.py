"""Seeds: every random draw is a function of its name."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
_GENERATORS = threading.RLock()  # held by the thread that draws from the global generators, which all threads share


def seed_for(*parts: int | str) -> int:
    """Derive the seed (0 .. 2**63 - 1) of one random draw from its name.

    Args:
        parts: the name, such as ``(run seed, "order", epoch)``.
    """
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


def seeded(*parts: int | str) -> None:
    """Seed the global generators of torch, numpy and random, which libraries draw from."""
    import numpy as np
    import torch

    seed = seed_for(*parts)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def alone(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function that draws from the global generators: threads of a process run such functions in turn."""

    @wraps(function)
    def waiting(*args: P.args, **kwargs: P.kwargs) -> T:
        with _GENERATORS:
            return function(*args, **kwargs)

    return waiting
