"""The residual blocks of a network, and what each of them can lose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from nas_kd.derive.calls import Call, calls_of, check_network, only_firsts_are_needed
from nas_kd.derive.chain import LAYERS, Between, between
from nas_kd.derive.groups import Group, Slot, Tracer
from nas_kd.derive.verify import sound
from nas_kd.errors import SettingError
from nas_kd.nn.cutting import heads_of
from nas_kd.nn.inputs import takes_images

# operations of autograd that hand an image on as it is, but for its size, layout or range
PLAIN: tuple[str, ...] = (
    "Add",
    "Relu",
    "Hardtanh",
    "Gelu",
    "Silu",
    "View",
    "Reshape",
    "Permute",
    "Transpose",
    "Clone",
    "Alias",
)
PLAIN += (
    "Slice",
    "Roll",
    "Dropout",
    "Mul",
    "Squeeze",
    "Unsqueeze",
    "Copy",
    "ToCopy",
    "ConstantPad",
    "AsStrided",
    "IndexSelect",
)
NORMS = ("NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm")  # the identity of a RepVGG block
LAYER_NORMS = ("NativeLayerNorm",)  # of a block that normalises after it has added, as BERT's


@dataclass(frozen=True)
class Unit:
    """A block of a network that is cut by itself.

    Args:
        path: where it is in the network.
        groups: channels inside it that can be cut, those of each group together.
        removable: whether it may be left out: its output has the shape of its input.
        shape: (C, H, W) or (N, C) of its input.
        out_shape: likewise of its output.
        more: outputs behind the first, which nobody needs.
    """

    path: str
    groups: tuple[Group, ...]
    removable: bool
    shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    more: int = 0


def find_units(network: nn.Module, images: Any) -> list[Unit]:
    """Find the blocks of a network, as `find_parts` does, without streams where there are channels inside blocks."""
    return find_parts(network, images)[0]


@torch.enable_grad()  # tracing follows autograd, whatever the caller has switched off
def find_parts(network: nn.Module, images: Any, residual: bool = False) -> tuple[list[Unit], Between]:
    """Find the blocks of a network, in the order in which they run, and the channels between them.

    A block is the smallest module that adds its input to what it makes of it, or a module of the same class (the
    first block of a stage, whose shortcut is a convolution). Where there are none, those that give several outputs are
    blocks if the network needs the first alone. Channels tied to none outside are its groups.
    Where channels are tied inside another module, this is a unit too, but for the choice to be left out; not so the
    chains of a network without blocks.
    All other groups are streams: the widths of the residual streams, and those between the layers of a plain network.

    Args:
        network: in evaluation mode.
        images: (B, C, H, W) random images of the size that it takes, or texts.
        residual: whether streams are cut in a network that has channels inside residual blocks; in others always.

    Returns:
        The units, and what is cut between them.

    Raises:
        SettingError: the network cannot be traced, a layer runs twice, or there is nothing to cut.
    """
    check_network(network, images)
    groups = _merged(network, list(Tracer(network, images).groups()))
    groups = [_by_norm_groups(network, _by_heads(network, group)) for group in groups]
    read = [group for group in groups if any(slot.dim == 1 for slot in group.slots)]
    known = {slot.layer for group in groups if group not in read for slot in group.slots}  # the logits
    groups = sound(network, images, read)
    known |= {slot.layer for group in groups for slot in group.slots if slot.dim == 0}
    calls = calls_of(network, images)
    blocks = _found(network, calls)
    if not blocks:
        calls = _with_firsts(network, images, calls)
        blocks = _found(network, calls)
    homes = {id(group): _home(group, blocks) or _common(group.layers) for group in groups}
    around = {path for path in (*blocks, *homes.values()) if path}
    inner: dict[str, list[Group]] = {path: [] for path in blocks}
    free: list[Group] = []
    for group in groups:
        path = homes[id(group)]
        holds = any(other.startswith(f"{path}.") for other in around)  # channels between units, not in one
        chain = not blocks and isinstance(network.get_submodule(path), nn.Sequential)
        whole_head = path not in blocks and not takes_images(network)  # a text's pooler and classifier stay
        if path in calls and not holds and not chain and not whole_head:
            inner.setdefault(path, []).append(group)
        else:
            free.append(group)
    streams = residual or not any(inner[path] for path in blocks)
    units = []
    for path, call in calls.items():  # in the order of the calls
        if path not in inner or any(path.startswith(f"{other}.") for other in inner):
            continue
        if call.out is None:
            continue
        x = call.out if call.x is None else call.x
        removable = call.x is not None and x.shape == call.out.shape and path in blocks
        cuts = tuple(inner[path])
        if removable or cuts or streams:
            units.append(Unit(path, cuts, removable, tuple(x.shape[1:]), tuple(call.out.shape[1:]), call.more))
    paths = [unit.path for unit in units]
    stays = [name for name, layer in network.named_modules() if isinstance(layer, LAYERS) and name not in known]
    links = replace(between(network, free if streams else (), paths, list(calls)), stays=tuple(stays))
    if not any(unit.groups or unit.removable for unit in units) and not links.streams:
        legal = "a network with residual blocks, or with channels inside a block or between layers"
        raise SettingError("teacher", type(network).__name__, legal, "name a space instead (--space)")
    return units, links


def _found(network: nn.Module, calls: dict[str, Call]) -> list[str]:
    """Return the paths of the residual blocks, by the plainest ways around that there are."""
    found = (_blocks(network, calls, (*PLAIN, *more)) for more in ((), NORMS, LAYER_NORMS))
    return next((blocks for blocks in found if blocks), [])


def _with_firsts(network: nn.Module, images: Any, calls: dict[str, Call]) -> dict[str, Call]:
    """Return the calls with the first of several outputs as that of residual blocks, if the network needs it alone."""
    firsts = {path: replace(call, out=call.first) for path, call in calls.items() if call.more}
    kinds = {type(network.get_submodule(path)) for path in _found(network, firsts)}
    alike = [path for path in firsts if type(network.get_submodule(path)) in kinds]
    needed = not alike or only_firsts_are_needed(network, images, alike)
    return calls | {path: firsts[path] for path in alike if needed}


def _blocks(network: nn.Module, calls: dict[str, Call], plain: tuple[str, ...]) -> list[str]:
    """Return the paths of the residual blocks: the smallest modules with a plain way around, and their like."""
    skips = [path for path, call in calls.items() if _skips(call, plain)]
    smallest = [path for path in skips if not any(other.startswith(f"{path}.") for other in skips)]
    kinds = {type(network.get_submodule(path)) for path in smallest}
    alike = [path for path in calls if type(network.get_submodule(path)) in kinds]
    # a class may hold blocks in one place and be one in another
    return [path for path in alike if not any(other.startswith(f"{path}.") for other in smallest)]


def _skips(call: Call, plain: tuple[str, ...]) -> bool:
    """Tell whether a module's input reaches its output by additions and plain operations alone."""
    if call.x is None or call.out is None or call.x.grad_fn is None or call.out.grad_fn is None:
        return False
    start = call.x.grad_fn
    todo = [(call.out.grad_fn, False)]
    seen = set()
    while todo:
        node, added = todo.pop()
        if node is start:
            if added:
                return True
            continue
        if (node, added) in seen or node is None:
            continue
        seen.add((node, added))
        name = node.name()
        if not name.startswith(plain) or name.startswith("Addmm"):
            continue
        branches = [parent for parent, _ in node.next_functions if parent is not None]
        if name.startswith("Mul") and len(branches) > 1 and not _scales(node):
            continue  # a gate, as of squeeze-excite
        todo += [(parent, added or (name.startswith("Add") and len(branches) > 1)) for parent in branches]
    return False


def _scales(node: Any) -> bool:
    """Tell whether a product is one with a parameter alone, such as a layer scale."""
    return any(
        parent is not None and parent.name() == "torch::autograd::AccumulateGrad" for parent, _ in node.next_functions
    )


def _merged(network: nn.Module, groups: Sequence[Group]) -> list[Group]:
    """Tie the channels that go into a grouped convolution to those that come out, group of channels by group.

    Only whole groups can be cut there. Depthwise convolutions, where both are one channel, are tied already.
    """
    merged = list(groups)
    for name, layer in network.named_modules():
        if not isinstance(layer, nn.modules.conv._ConvNd) or layer.groups == 1:
            continue
        ins = next(
            (g for g in merged if any(s.layer == name and (s.tensor, s.dim) == ("weight", 1) for s in g.slots)), None
        )
        outs = next(
            (g for g in merged if any(s.layer == name and (s.tensor, s.dim) == ("weight", 0) for s in g.slots)), None
        )
        if ins is None or outs is None:
            continue
        if ins is outs:
            continue
        together = _tied(layer.groups, [s for s in ins.slots if not (s.layer == name and s.dim == 1)], outs.slots)
        merged = [group for group in merged if group is not ins and group is not outs]
        if together is not None:
            layers = tuple(dict.fromkeys((*ins.layers, *outs.layers)))
            merged.append(Group(ins.root, together, layers))
    return merged


def _tied(groups: int, *sides: Sequence[Slot]) -> tuple[Slot, ...] | None:
    """Write slots of channels as slots of groups of channels; None where they do not fall into so many equal parts."""
    found = []
    for slot in (slot for side in sides for slot in side):
        each, rest = divmod(len(slot.index), groups)
        if rest:
            return None
        parts = [slot.index[g * each : (g + 1) * each] for g in range(groups)]
        found.append(replace(slot, index=tuple(tuple(sorted(i for part in block for i in part)) for block in parts)))
    return tuple(found)


def _home(group: Group, blocks: Sequence[str]) -> str | None:
    """Return the block that all layers of a group lie in."""
    return next((path for path in blocks if all(layer.startswith(f"{path}.") for layer in group.layers)), None)


def _common(layers: Sequence[str]) -> str:
    """Return the path of the smallest module that holds all layers."""
    parts = [layer.split(".")[:-1] for layer in layers]
    shared = []
    for names in zip(*parts, strict=False):
        if len(set(names)) > 1:
            break
        shared.append(names[0])
    return ".".join(shared)


def _by_heads(network: nn.Module, group: Group) -> Group:
    """Tie the channels of each attention head, where the group's root makes queries, keys and values."""
    if "." not in group.root:
        return group
    attention = network.get_submodule(group.root.rpartition(".")[0])
    heads = heads_of(attention)
    path = group.root.rpartition(".")[0]
    made = [slot for slot in group.slots if slot.dim == 0 and slot.tensor == "weight" and slot.layer.startswith(path)]
    if not heads or sum(len(slot.index[0]) for slot in made) < 3:
        return group
    slots = _tied(heads, group.slots)
    if slots is None:
        return group
    each = tuple((head,) for head in range(heads))
    for name, parameter in attention.named_parameters(recurse=False):  # such as a table of position biases
        if heads in parameter.shape:
            slots = (*slots, Slot(path, name, len(parameter.shape) - 1 - parameter.shape[::-1].index(heads), each))
    layers = tuple(dict.fromkeys(slot.layer for slot in slots))
    return replace(group, slots=slots, layers=layers)


def _by_norm_groups(network: nn.Module, group: Group) -> Group:
    """Tie the channels that a group norm normalises together: the statistics of the others stay as they are."""
    for layer in group.layers:
        module = network.get_submodule(layer)
        if isinstance(module, nn.GroupNorm) and 1 < module.num_groups < group.channels:
            slots = _tied(module.num_groups, group.slots)
            return group if slots is None else replace(group, slots=slots)
    return group


def walk(units: Sequence[Unit], links: Between) -> Iterator[str]:
    """Describe units and streams in a line each, and name the layers that stay as they are."""
    for unit in units:
        cuts = ", ".join(f"{group.channels} of {group.root.removeprefix(unit.path + '.')}" for group in unit.groups)
        yield f"{unit.path}: {cuts or 'nothing inside'}{'; may be left out' if unit.removable else ''}"
    for stream in links.streams:
        yield f"{stream.root}: {stream.channels} channels that go through {len(stream.layers)} layers"
    if links.stays:
        yield f"cannot be cut and stay as they are: {', '.join(links.stays)}"
