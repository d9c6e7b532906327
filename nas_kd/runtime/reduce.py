"""Training on several processes: one all-reduce per step, and errors instead of silent differences."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nas_kd.runtime.ranks import rank, world


def check_same(name: str, value: str) -> None:
    """Raise unless the value is the same in all processes; every process must call it.

    Eight bytes of a hash are exchanged between CPUs, without synchronising a GPU. The message is separate from that of
    the gradients, because gradients of different parameters would make buffers of different sizes, on which an
    all-reduce hangs or adds the wrong numbers.

    Raises:
        RuntimeError: processes differ; each reports its own value.
    """
    if world() == 1:
        return
    digest = hashlib.sha256(f"{name}={value}".encode()).digest()[:8]
    mine = torch.tensor([int.from_bytes(digest, "big", signed=True)])
    found = [torch.empty_like(mine) for _ in range(world())]
    dist.all_gather(found, mine)
    if any(int(other) != int(mine) for other in found):
        same = [number for number, other in enumerate(found) if int(other) == int(mine)]
        given = value if len(value) <= 200 else f"{value[:200]}..."
        raise RuntimeError(f"ranks differ in {name}; rank {rank()} (as ranks {same} of {world()}) has {given!r}")


@torch.no_grad()
def reduce_gradients(parameters: Iterable[nn.Parameter], values: Sequence[Tensor] = ()) -> list[Tensor]:
    """Average gradients, and some scalars with them, over all processes in one all-reduce.

    Only parameters with a gradient are reduced: those used by the archs of the step, which must be the same in every
    process. Gradients become views of one buffer.

    Args:
        parameters: all parameters in training, in the same order on every process.
        values: scalars such as losses; a NaN in one process is then seen by all, at the same step.

    Returns:
        The means of the values.

    Raises:
        RuntimeError: processes hold gradients of different parameters.
    """
    if world() == 1:
        return [value.detach() for value in values]
    every = list(parameters)
    numbers = [number for number, parameter in enumerate(every) if parameter.grad is not None]
    check_same("the parameters that have a gradient", ",".join(map(str, numbers)))
    used = [every[number] for number in numbers]
    like = used[0] if used else values[0]
    flat = torch.empty(sum(p.numel() for p in used) + len(values), dtype=like.dtype, device=like.device)
    views = []
    start = 0
    for parameter in used:
        views.append(_view(flat, start, parameter))
        start += parameter.numel()
    gradients = [parameter.grad for parameter in used if parameter.grad is not None]
    if views:
        torch._foreach_copy_(views, gradients)
    for place, value in enumerate(values, start):
        flat[place] = value
    dist.all_reduce(flat)  # a sum: gloo has no mean
    flat /= world()
    for parameter, view in zip(used, views, strict=True):
        parameter.grad = view
    return list(flat[start:])


def _view(flat: Tensor, start: int, parameter: Tensor) -> Tensor:
    """Return a parameter's slice of the buffer, in its own memory order so that copies are contiguous."""
    dense = parameter.is_contiguous() or parameter.is_contiguous(memory_format=torch.channels_last)
    if dense:
        return flat.as_strided(parameter.shape, parameter.stride(), start)
    return flat[start : start + parameter.numel()].view(parameter.shape)


def mean_over_ranks(value: Tensor) -> Tensor:
    """Average a tensor of equal shape over all processes; the mean is bitwise equal in every process."""
    if world() == 1:
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / world()
