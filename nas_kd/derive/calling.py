"""Networks run with other weights, statistics or parts in the place of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nas_kd.derive.units import Unit
from nas_kd.nn.cutting import first_of
from nas_kd.nn.norm import NormValues


@dataclass(frozen=True)
class Given:
    """What a unit is called with, where that is more than its input, such as a mask beside it.

    Args:
        args: by place, the input first.
        kwargs: by name.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


def given_by(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Return a copy of what a module was called with: a later layer may change it in place."""
    x = args[0].clone() if isinstance(args[0], Tensor) else [part.clone() for part in args[0]]
    return Given((x, *args[1:]), kwargs) if len(args) > 1 or kwargs else x


def input_of(x: Any) -> Any:
    """Return the input among what a unit is called with."""
    return x.args[0] if isinstance(x, Given) else x


def arguments(x: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what a module is called with, by place and by name."""
    return (x.args, dict(x.kwargs)) if isinstance(x, Given) else ((x,), {})


@torch.no_grad()
def unit_features(
    network: nn.Module, units: Sequence[Unit], images: Any, tensors: Mapping[str, Tensor] | None = None
) -> tuple[list[tuple[Any, Tensor]], Tensor]:
    """Run a network once, in the mode that it is in.

    Args:
        network: with the units, or what is in their place.
        units: the units.
        images: (B, C, H, W) as it takes them, or texts.
        tensors: weights that it is called with, by name; None calls it with its own.

    Returns:
        Input (of a dense layer all features before it; `Given` where a unit takes more) and output of every unit, of
        several the first, and the logits (B, classes).
    """
    found: dict[int, tuple[Any, Tensor]] = {}

    def keep(index: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        found[index] = (given_by(args, kwargs), first_of(out).clone())

    handles = [
        network.get_submodule(u.path).register_forward_hook(partial(keep, i), with_kwargs=True)
        for i, u in enumerate(units)
    ]
    try:
        logits: Tensor = called_with(network, tensors or {}, images)
    finally:
        for handle in handles:
            handle.remove()
    return [found[index] for index in range(len(units))], logits


def called_with(
    network: nn.Module, tensors: Mapping[str, Tensor], x: Any, modules: Mapping[str, nn.Module] | None = None
) -> Tensor:
    """Run a network with other tensors in the place of its own: `torch.func.functional_call` without its checks.

    Args:
        network: left as it is.
        tensors: by name.
        x: its input.
        modules: its modules by path, where they are known.
    """
    modules = dict(network.named_modules()) if modules is None else modules
    before = []
    try:
        for name, tensor in tensors.items():
            path, _, own = name.rpartition(".")
            owner = modules[path]
            home: dict[str, Any] = owner._parameters if own in owner._parameters else owner._buffers
            before.append((home, own, home[own]))
            home[own] = tensor
        args, kwargs = arguments(x)
        return network(*args, **kwargs)
    finally:
        for home, own, old in before:
            home[own] = old


def batch_norms(network: nn.Module) -> dict[str, Any]:
    """Return the batch norms of a network that keep statistics, by path."""
    kinds = nn.modules.batchnorm._BatchNorm
    return {n: m for n, m in network.named_modules() if isinstance(m, kinds) and m.running_mean is not None}


def statistics_of(norm: NormValues | None) -> dict[str, Tensor]:
    """Write statistics as the buffers that batch norms read them from."""
    found: dict[str, Tensor] = {}
    for path, (mean, variance) in (norm or {}).items():
        found[f"{path}.running_mean"] = mean
        found[f"{path}.running_var"] = variance
    return found


def replaced(module: nn.Module, changes: Mapping[str, nn.Module]) -> nn.Module:
    """Return a module with others in the place of some of its parts; what is not above them is the same object.

    Args:
        module: not changed.
        changes: path to new part.
    """
    if not changes:
        return module
    if "" in changes:
        return changes[""]
    below: dict[str, dict[str, nn.Module]] = {}
    for path, part in changes.items():
        first, _, rest = path.partition(".")
        below.setdefault(first, {})[rest] = part
    found = copy(module)
    found._modules = dict(module._modules)
    for name, inner in below.items():
        child = module._modules[name]
        assert child is not None
        found._modules[name] = replaced(child, inner)
    return found
