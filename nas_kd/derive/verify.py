"""Whether groups of channels are what they are said to be: reordered in all layers alike, they change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from nas_kd.derive.groups import Group, Slot
from nas_kd.nn.widen import Widen

APART = 1e-4  # of the spread of the logits, in float32; a wrong group is apart by about as much as they spread
SEED = 20_011
SMALL = 4  # layers of a group inside a block; groups along the network have more


def sound(network: nn.Module, images: Any, groups: Sequence[Group]) -> list[Group]:
    """Return the groups that can be cut: reordered in all layers alike they change nothing.

    What tracing cannot see, such as channels that are shuffled by constants, is found so.

    Args:
        network: in evaluation mode; it stays as it is.
        images: (B, C, H, W), or texts.
        groups: channels that are tied by what tracing says.
    """
    usable = [group for group in groups if _even(group) and _inside(network, group)]
    with torch.no_grad():
        want = network(images)
        copied = [_side_by_side(network, group) if len(group.layers) > SMALL else group for group in usable]
        for all_of in (usable, copied):
            if _same(network, images, all_of, want):
                return all_of
        small = [group for group in usable if len(group.layers) <= SMALL]
        if not _same(network, images, small, want):
            small = [group for group in small if _same(network, images, [group], want)]
        found = {id(group): group for group in small}
        for group in usable:
            for other in (group, _side_by_side(network, group)) if len(group.layers) > SMALL else ():
                if _same(network, images, [other], want):
                    found[id(group)] = other
                    break
        return [found[id(group)] for group in usable if id(group) in found]


def _side_by_side(network: nn.Module, group: Group) -> Group:
    """Return a group that some layers have several copies of, all channels of one after those of the other.

    So a merge of patches lays the channels of four pixels; tracing takes them for those of the first.
    """
    slots = []
    for slot in group.slots:
        tensor = getattr(network.get_submodule(slot.layer), slot.tensor)
        copies = tensor.shape[slot.dim] // len(slot.index) if isinstance(tensor, Tensor) else 1
        if copies > 1 and len(slot.index[0]) == 1 and slot.index[-1][0] < len(slot.index):
            starts = [copy * len(slot.index) for copy in range(copies)]
            slot = replace(slot, index=tuple(tuple(start + part for start in starts) for (part,) in slot.index))
        slots.append(slot)
    return replace(group, slots=tuple(slots))


def _even(group: Group) -> bool:
    """Tell whether all parts of a group have as many positions in a tensor."""
    return all(len({len(part) for part in slot.index}) == 1 for slot in group.slots)


def _inside(network: nn.Module, group: Group) -> bool:
    """Tell whether the tensors of a group hold all its positions: tracing takes those of a table by head for others."""
    for slot in group.slots:
        tensor = getattr(network.get_submodule(slot.layer), slot.tensor)
        if isinstance(tensor, Tensor) and any(max(part) >= tensor.shape[slot.dim] for part in slot.index):
            return False
    return True


def _same(network: nn.Module, images: Any, groups: Sequence[Group], want: Tensor) -> bool:
    other = deepcopy(network)
    for number, group in enumerate(groups):
        rng = torch.Generator().manual_seed(SEED + number)
        swapped = torch.randperm(group.channels, generator=rng).tolist()
        for slot in group.slots:
            _reorder(other.get_submodule(slot.layer), slot, swapped)
    spread = (want - want.mean()).abs().max().clamp_min(1e-12)
    return bool((other(images) - want).abs().max() <= APART * spread)


def _reorder(layer: Any, slot: Slot, swapped: Sequence[int]) -> None:
    """Put the parts of a group in another order along a dimension of a tensor."""
    moves = {
        place: source
        for part, other in zip(slot.index, swapped, strict=True)
        for place, source in zip(part, slot.index[other], strict=True)
    }
    if isinstance(layer, Widen):
        if slot.dim == 0:
            sources = [layer.sources[moves.get(place, place)] for place in range(len(layer.sources))]
        else:
            at = {source: place for place, source in moves.items()}
            sources = [at.get(source, source) for source in layer.sources]
        layer.set_sources(sources, layer.in_width)
        return
    if slot.dim == 1 and slot.tensor == "weight" and getattr(layer, "groups", 1) > 1:
        return  # the columns of a grouped convolution go with its outputs
    tensor = getattr(layer, slot.tensor)
    index = torch.tensor([moves.get(place, place) for place in range(tensor.shape[slot.dim])], device=tensor.device)
    tensor.data = tensor.data.index_select(slot.dim, index)
