"""The processes that torchrun started: how many there are, which one this is, and small messages between them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

ValueT = TypeVar("ValueT")

_LAUNCHER = "TORCHELASTIC_RUN_ID"  # set by torchrun, and what torch and Fabric know it by


def launched() -> tuple[int, int]:
    """Tell what torchrun started, without importing torch.

    Returns:
        The number of this process, from 0, and the number of processes; (0, 1) without torchrun.
    """
    if _LAUNCHER not in os.environ:
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def world() -> int:
    """Return the number of processes that work together; 1 before they have joined and after they have parted."""
    dist = _group()
    return dist.get_world_size() if dist else 1


def rank() -> int:
    """Return the number of this process among those that work together, from 0."""
    dist = _group()
    return dist.get_rank() if dist else 0


def everyone(value: ValueT) -> list[ValueT]:
    """Exchange values; every process of the group must call it.

    Args:
        value: anything that can be pickled; tensors on the CPU.

    Returns:
        The value of every process, in their order.
    """
    dist = _group()
    if not dist:
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)  # through the CPU's backend, also beside GPUs
    return values


def from_first(value: ValueT) -> ValueT:
    """Hand the first process's value to all; every process of the group must call it.

    Args:
        value: what the first process gives; that of the others does not count.

    Returns:
        The first process's value.
    """
    dist = _group()
    if not dist:
        return value
    box: list[Any] = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def wait() -> None:
    """Wait until every process of the group is here."""
    everyone(None)


@contextmanager
def in_turn() -> Iterator[None]:
    """Let the first process do what is inside, and then the others, who find its files; all must enter."""
    if rank() > 0:
        wait()
    yield
    if rank() == 0:
        wait()


def part() -> None:
    """End the work together: from here on this process, and those it starts, work alone."""
    dist = _group()
    if dist:
        dist.destroy_process_group()
    work_alone()


def work_alone() -> None:
    """Let this process, and those it starts, forget that torchrun started it beside others."""
    os.environ.pop(_LAUNCHER, None)


def _group() -> Any:
    """Return torch.distributed where this process is in a group, else None."""
    import torch.distributed as dist

    return dist if dist.is_available() and dist.is_initialized() else None
