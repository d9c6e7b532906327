"""The processes that torchrun or srun started: their number, the own rank, and small messages between them."""

from __future__ import annotations

import multiprocessing
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from nas_kd.errors import SettingError
from nas_kd.runtime.repeated import repeated

ValueT = TypeVar("ValueT")

_LAUNCHER = "TORCHELASTIC_RUN_ID"  # set by torchrun; torch and Fabric detect it by this
_SLURM = "SLURM_NTASKS"  # set by srun; Fabric detects it by this
_RESTART = f"start the command by torchrun or srun, or unset {_LAUNCHER} and {_SLURM}"
NO_SLURM_JOBS = ("bash", "interactive")  # names of jobs in which Fabric ignores SLURM
PATIENCE = timedelta(minutes=30)  # a process that keeps the others waiting for longer is lost; torch's default
HEARTBEAT = 60.0  # seconds between heartbeats of the first process while the others wait for its work


def launched() -> tuple[int, int]:
    """Return rank and world size of torchrun or srun, (0, 1) without them, without importing torch.

    Raises:
        SettingError: they set something else in the environment.
    """
    if _LAUNCHER in os.environ:
        names = ("RANK", "WORLD_SIZE")
        _number("LOCAL_RANK", "0")
    elif _SLURM in os.environ and os.environ.get("SLURM_JOB_NAME") not in NO_SLURM_JOBS:
        names = ("SLURM_PROCID", _SLURM)
    else:
        return 0, 1
    rank, world = _number(names[0], "0" if names[1] == _SLURM else None), _number(names[1])
    if rank >= world:
        raise SettingError(names[0], rank, f"a number below {names[1]}={world}, in the environment", _RESTART)
    return rank, world


def _number(name: str, otherwise: str | None = None) -> int:
    """Read a number that a launcher gives to its processes.

    Raises:
        SettingError: it is none.
    """
    text = os.environ.get(name, otherwise)
    if text is None or not re.fullmatch(r"[0-9]{1,9}", text):
        raise SettingError(name, text, "a number from torchrun or srun, in the environment", _RESTART)
    return int(text)


def launched_here() -> int | None:
    """Return how many of them run on this machine; None where srun does not set it."""
    name = "LOCAL_WORLD_SIZE" if _LAUNCHER in os.environ else "SLURM_NTASKS_PER_NODE"
    return int(os.environ[name]) if os.environ.get(name, "").isdecimal() else None


def in_worker() -> bool:
    """Return whether another process prints and writes status.json for this one.

    True in the workers of `run_jobs`, and in all processes of torchrun but the first.
    """
    return multiprocessing.parent_process() is not None or launched()[0] > 0


def world() -> int:
    """Return the size of the process group; 1 before it is joined and after it is left."""
    dist = _group()
    return dist.get_world_size() if dist else 1


def rank() -> int:
    """Return the rank of this process in its group, from 0."""
    dist = _group()
    return dist.get_rank() if dist else 0


def all_gather(value: ValueT) -> list[ValueT]:
    """Return the values of all processes, by rank; every process of the group must call it.

    Args:
        value: anything that can be pickled; tensors on the CPU.
    """
    dist = _group()
    if not dist:
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)  # through the CPU backend, with GPUs too
    return values


def broadcast(value: ValueT) -> ValueT:
    """Return the first process's value on every process; every process of the group must call it."""
    dist = _group()
    if not dist:
        return value
    box: list[Any] = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def barrier() -> None:
    """Wait for every process of the group."""
    all_gather(None)


@contextmanager
def rank_zero_first() -> Iterator[None]:
    """Run the body in the first process, then in the others, which find its files; all must enter.

    The work may take hours, but a lost process must be noticed within minutes: heartbeats are sent meanwhile.
    """
    dist = _group()
    if not dist or world() == 1:
        yield
        return
    import torch

    group = dist.new_group(backend="gloo", timeout=PATIENCE)
    over = torch.zeros(1)
    if rank() > 0:
        while not over:
            dist.broadcast(over, src=0, group=group)
        yield
        return
    with repeated(lambda: dist.broadcast(torch.zeros(1), src=0, group=group), HEARTBEAT):
        yield
    dist.broadcast(torch.ones(1), src=0, group=group)


def leave_group() -> None:
    """Leave the process group: from now on this process and its children run as single processes."""
    dist = _group()
    if dist:
        dist.destroy_process_group()
    forget_launcher()


def forget_launcher() -> None:
    """Let this process and its children ignore that torchrun or srun started them."""
    os.environ.pop(_LAUNCHER, None)
    os.environ.pop(_SLURM, None)


def peer_lost(error: RuntimeError) -> bool:
    """Return whether an error means that a process of the group was lost; gloo has no error class for it."""
    message = str(error)
    signs = ("onnection closed", "onnection reset", "onnection was likely closed", "Timed out waiting", "roken pipe")
    return any(sign in message for sign in signs)


def _group() -> Any:
    """Return torch.distributed where this process is in a group, else None."""
    import torch.distributed as dist

    return dist if dist.is_available() and dist.is_initialized() else None
