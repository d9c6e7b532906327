"""A unit with fewer channels inside: its own class with other sizes, called with slices of its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nas_kd.derive.groups import Group
from nas_kd.derive.units import Unit
from nas_kd.nn.cutting import COUNTS, WIDTHS, heads_of, set_tensor, update_sizes
from nas_kd.nn.widen import Widen

Kept = tuple[int, ...]  # of each group of a unit, how many of its parts stay


def sizes(group: Group, shares: Sequence[float], multiple: int = 8, least: int = 32) -> tuple[int, ...]:
    """Return how many parts of a group may stay.

    Args:
        group: the channels.
        shares: shares of them, rising, the last 1.
        multiple: what the numbers are multiples of where there are at least ``least`` channels.
        least: see there.

    Returns:
        Rising numbers, each once; the last is all.
    """
    step = multiple if group.channels >= least else 1
    counts = {max(step, round(group.channels * share / step) * step) for share in shares}
    return tuple(sorted({min(count, group.channels) for count in counts} | {group.channels}))


@dataclass(frozen=True)
class Slice:
    """Where a tensor of a twin comes from.

    Args:
        source: name of the tensor in the unit.
        picks: for each dimension that is cut, the positions that stay, in rising order.
    """

    source: str
    picks: tuple[tuple[int, Tensor], ...]

    def of(self, tensor: Tensor) -> Tensor:
        """Cut the unit's tensor to that of the twin."""
        last = tensor.ndim == 4 and not tensor.is_contiguous()  # stays channels last: selection alone would undo it
        tensor = tensor.permute(0, 2, 3, 1) if last else tensor
        for dim, index in self.picks:
            tensor = tensor.index_select((0, 3, 1, 2)[dim] if last else dim, index.to(tensor.device))
        return tensor.permute(0, 3, 1, 2) if last else tensor


@dataclass(frozen=True)
class Twin:
    """A unit after a choice.

    Args:
        module: the unit's own class with the sizes of the choice; its parameters are on the meta device.
        slices: name of each cut tensor to where it comes from.
    """

    module: nn.Module
    slices: Mapping[str, Slice]


def cut(block: nn.Module, unit: Unit, kept: Kept, order: Sequence[Tensor]) -> Twin:
    """Make the twin of a unit for a choice.

    Args:
        block: the unit.
        unit: its description.
        kept: how many parts of each group stay.
        order: of each group, its parts by falling importance.

    Returns:
        The twin; no weight of the block is copied for good.
    """
    gone: dict[tuple[str, int], set[int]] = {}  # several groups may be read by one layer, side by side
    layers: set[str] = set()
    for group, count, rank in zip(unit.groups, kept, order, strict=True):
        for slot in group.slots if count < group.channels else ():
            layer = _inside(slot.layer, unit.path)
            layers.add(layer)
            if slot.tensor == "weight" and slot.dim == 1 and _grouped(block.get_submodule(layer)):
                continue  # whole groups of a convolution go by its outputs
            lost = gone.setdefault((f"{layer}.{slot.tensor}".lstrip("."), slot.dim), set())
            lost.update(place for part in rank[count:].tolist() for place in slot.index[part])
    tensors = {**dict(block.named_parameters()), **dict(block.named_buffers())}
    picks: dict[str, dict[int, Tensor]] = {}
    for (name, dim), lost in gone.items():
        if name not in tensors:
            continue  # the sources of a `Widen`
        left = [place for place in range(tensors[name].shape[dim]) if place not in lost]
        picks.setdefault(name, {})[dim] = torch.tensor(left)
    module = deepcopy(block)
    slices = {}
    for name, by_dim in picks.items():
        picked = Slice(name, tuple(sorted(by_dim.items(), key=lambda item: item[0])))
        _resize(module, name, picked)
        slices[name] = picked
    for layer in layers:
        part = module.get_submodule(layer)
        update_sizes(part)
        if isinstance(part, Widen):
            name = f"{layer}.sources".lstrip(".")
            _rewire(part, gone.get((name, 1), set()), gone.get((name, 0), set()))
    for group, count in zip(unit.groups, kept, strict=True):
        if group.root.startswith(f"{unit.path}."):
            _attend(module, _inside(group.root, unit.path), group, count)
    for name, _ in list(module.named_parameters()):
        owner, tensor = _owner(module, name)
        owner._parameters[tensor] = nn.Parameter(getattr(owner, tensor).to("meta"))
    return Twin(module, slices)


def _inside(path: str, unit: str) -> str:
    """Return the path of a layer as seen from a unit; "" for the unit itself."""
    return path.removeprefix(unit).removeprefix(".")


def _rewire(layer: Widen, lost_inputs: set[int], lost: set[int]) -> None:
    """Connect the channels of a shortcut that stay."""
    left = [place for place in range(layer.in_width) if place not in lost_inputs]
    at = {place: number for number, place in enumerate(left)}
    sources = [at.get(source, -1) for place, source in enumerate(layer.sources) if place not in lost]
    layer.set_sources(sources, len(left))


def _grouped(layer: nn.Module) -> bool:
    return isinstance(layer, nn.modules.conv._ConvNd) and layer.groups > 1


def _owner(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, tensor = name.rpartition(".")
    return module.get_submodule(path), tensor


def _resize(module: nn.Module, name: str, picked: Slice) -> None:
    owner, tensor = _owner(module, name)
    set_tensor(owner, tensor, picked.of(getattr(owner, tensor).detach()))


def _attend(module: nn.Module, root: str, group: Group, count: int) -> None:
    """Give an attention the number of heads that stay."""
    if "." not in root:
        return
    attention: Any = module.get_submodule(root.rpartition(".")[0])
    heads = heads_of(attention)
    if heads is None or heads != group.channels or count == heads:
        return
    for name in COUNTS:
        if hasattr(attention, name):
            setattr(attention, name, count)
    for name in WIDTHS:
        if isinstance(size := getattr(attention, name, None), int):
            setattr(attention, name, size * count // heads)
