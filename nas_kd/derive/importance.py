"""Which channels of a unit matter most, from one pass over the user's images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nas_kd.derive.calls import learnable
from nas_kd.derive.groups import Group, Slot
from nas_kd.derive.units import Unit
from nas_kd.errors import SettingError
from nas_kd.losses import label_loss
from nas_kd.nn import inputs
from nas_kd.runtime.seeds import seed_for

CRITERIA = ("activation", "taylor", "l1", "random")


def importance_order(
    network: nn.Module,
    units: Sequence[Unit],
    batches: Iterable[tuple[Any, Tensor]],
    criterion: str = "activation",
    seed: int = 0,
    kind: str = "classes",
) -> list[list[Tensor]]:
    """Order the parts of every group by falling importance.

    Args:
        network: in evaluation mode.
        units: its units.
        batches: images (B, C, H, W) as the network takes them, or texts, and labels (B,) or (B, L).
        criterion: ``activation``: the mean size of a channel times the norm of the weights that read it. ``taylor``:
            the size of the first-order change of the loss without it. ``l1``: the norm of the weights alone.
            ``random``: the
            control.
        seed: seed of ``random``.
        kind: what labels are; see `nas_kd.losses.label_loss`.

    Returns:
        For each unit and group the (parts,) numbers, most important first.

    Source: activation: Minitron (Muralidharan et al. 2024), Wanda (Sun et al. 2023); Taylor: Molchanov et al. 2019.
    """
    if criterion not in CRITERIA:
        raise SettingError("importance", criterion, ", ".join(CRITERIA), "use activation")
    groups = [group for unit in units for group in unit.groups]
    if criterion == "random":
        generators = [torch.Generator().manual_seed(seed_for(seed, "importance", g.root) % 2**63) for g in groups]
        ranks = [torch.randperm(g.channels, generator=rng) for g, rng in zip(groups, generators, strict=True)]
    else:
        sizes = _sizes(network, groups, batches, kind if criterion == "taylor" else None) if criterion != "l1" else {}
        ranks = [_score(network, group, sizes, criterion).argsort(descending=True, stable=True) for group in groups]
    left = iter(ranks)
    return [[next(left) for _ in unit.groups] for unit in units]


def readers(network: nn.Module, group: Group) -> list[Slot]:
    """Return the slots of the layers that read a group's channels; a table of embeddings writes them."""
    found = [slot for slot in group.slots if slot.tensor == "weight" and slot.dim == 1]
    return [slot for slot in found if not isinstance(network.get_submodule(slot.layer), nn.Embedding)]


def _sizes(
    network: nn.Module, groups: Sequence[Group], batches: Iterable[tuple[Any, Tensor]], kind: str | None
) -> dict[str, Tensor]:
    """Return the mean size of every input channel of the layers that read groups, (C,), or of its Taylor term.

    Args:
        kind: what labels are, for the Taylor term; None is for the mean size.
    """
    gradients = kind is not None
    names = {slot.layer for group in groups for slot in readers(network, group)}
    sums: dict[str, Tensor] = {}
    seen: dict[str, Tensor] = {}

    def look(name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        x: Tensor = args[0]
        if gradients:
            seen[name] = x
            x.retain_grad()
        else:
            _add(sums, name, x.detach().abs(), module, real)

    handles = [network.get_submodule(name).register_forward_pre_hook(partial(look, name)) for name in names]
    images = 0
    real: Tensor | None = None
    try:
        with torch.set_grad_enabled(gradients), learnable(network):
            for x, y in batches:
                real = inputs.real_tokens(x)
                logits = network(x)
                if kind is not None:
                    label_loss(kind, logits, y.to(logits.device)).backward()
                    for name, value in seen.items():
                        if value.grad is not None:
                            _add(sums, name, (value.detach() * value.grad).abs(), network.get_submodule(name), real)
                    network.zero_grad()
                images += inputs.count(x)
    finally:
        for handle in handles:
            handle.remove()
    if not images:
        raise SettingError("data", 0, "at least one image to weigh channels on", "pass data=nas_kd.load_data(...)")
    return {name: total / images for name, total in sums.items()}


def _add(sums: dict[str, Tensor], name: str, values: Tensor, module: nn.Module, real: Tensor | None) -> None:
    if real is not None and values.shape[:2] == real.shape:  # the mean is over tokens that are no padding
        values = values * (real * (real.shape[1] / real.sum(1, keepdim=True)))[..., None]
    channels_first = isinstance(module, nn.modules.conv._ConvNd)
    dims = [d for d in range(values.ndim) if d != (1 if channels_first else values.ndim - 1)]
    total = values.double().mean([d for d in dims if d != 0]).sum(0) if len(dims) > 1 else values.double().sum(0)
    sums[name] = sums[name] + total if name in sums else total


def _score(network: nn.Module, group: Group, sizes: dict[str, Tensor], criterion: str) -> Tensor:
    """Return one number a part of a group."""
    total = torch.zeros(group.channels, dtype=torch.float64)
    for slot in readers(network, group):
        layer: Any = network.get_submodule(slot.layer)
        weight = layer.weight.detach().double().cpu()
        norms = weight.flatten(2).norm(dim=(0, 2)) if weight.ndim > 2 else weight.norm(dim=0)
        if len(norms) < max(part[-1] for part in slot.index) + 1:  # a grouped convolution's columns repeat
            continue
        value = norms if criterion == "l1" else sizes[slot.layer].cpu()
        if criterion == "activation":
            value = value * norms
        total += torch.stack([value[list(part)].sum() for part in slot.index])
    return total
