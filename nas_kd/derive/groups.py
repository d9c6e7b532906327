"""Which channels of a network can only be cut together, found by tracing it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from nas_kd.derive.calls import HINT, learnable
from nas_kd.errors import SettingError
from nas_kd.nn.cutting import heads_of
from nas_kd.nn.widen import Widen

# where a layer keeps its output and its input channels: (tensor, dimension)
OUT = {
    nn.modules.conv._ConvNd: (("weight", 0), ("bias", 0)),
    nn.Linear: (("weight", 0), ("bias", 0)),
    nn.modules.batchnorm._BatchNorm: (("weight", 0), ("bias", 0), ("running_mean", 0), ("running_var", 0)),
    nn.GroupNorm: (("weight", 0), ("bias", 0)),
    nn.LayerNorm: (("weight", 0), ("bias", 0)),
    nn.PReLU: (("weight", 0),),
    nn.Embedding: (("weight", 1),),
    Widen: (("sources", 0),),
}
Key = tuple[str, str, int]  # layer, tensor, dimension
Part = dict[Key, tuple[int, ...]]
IN = {nn.modules.conv._ConvNd: (("weight", 1),), nn.Linear: (("weight", 1),), Widen: (("sources", 1),)}


@dataclass(frozen=True)
class Slot:
    """One dimension of one tensor that channels run along.

    Args:
        layer: path of the module.
        tensor: name of the parameter or buffer in it.
        dim: which dimension.
        index: for each channel the positions that go with it, in rising order.
    """

    layer: str
    tensor: str
    dim: int
    index: tuple[tuple[int, ...], ...]

    @property
    def name(self) -> str:
        """Full name of the tensor."""
        return f"{self.layer}.{self.tensor}" if self.layer else self.tensor


@dataclass(frozen=True)
class Group:
    """Channels that exist in several layers at once, such as those between the two convolutions of a residual block.

    Args:
        root: path of the layer that makes them.
        slots: every dimension that they run along.
        layers: paths of all layers that they pass through.
    """

    root: str
    slots: tuple[Slot, ...]
    layers: tuple[str, ...]

    @property
    def channels(self) -> int:
        """How many parts the group has that can be left out by themselves: channels, or groups of a convolution."""
        return len(self.slots[0].index)


class Tracer:
    """The dependency graph of a network.

    Args:
        network: the network, in evaluation mode.
        images: (B, C, H, W) of the size that it takes, or texts.

    Raises:
        SettingError: the network cannot be traced.

    Source: Fang et al. 2023, DepGraph: Towards Any Structural Pruning; torch-pruning is its authors' code.
    """

    def __init__(self, network: nn.Module, images: Any) -> None:
        import torch_pruning

        self.network = network
        self.names = {module: name for name, module in network.named_modules()}
        self.parameters = {parameter: name for name, parameter in network.named_parameters()}
        try:
            with warnings.catch_warnings(), learnable(network):  # the graph is read off autograd
                warnings.simplefilter("ignore")
                self.graph = torch_pruning.DependencyGraph().build_dependency(
                    network,
                    example_inputs=images,
                    forward_fn=lambda module, x: module(x),
                    customized_pruners={Widen: _widen_pruner()},
                    verbose=False,
                )
        except Exception as error:  # whatever a foreign forward pass raises
            text = " ".join(str(error).split())[:200]
            raise SettingError(
                "teacher", type(network).__name__, f"a network that can be traced ({text})", HINT
            ) from error

    def groups(self) -> Iterator[Group]:
        """Find the groups of channels whose tensors are all known."""
        seen: set[tuple[str, int]] = set()
        for name, layer in self.network.named_modules():
            if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd) and layer in self.graph.module2node:
                if (group := self._group(name, layer, seen)) is not None:
                    yield group

    def _group(self, name: str, layer: Any, seen: set[tuple[str, int]]) -> Group | None:
        channels = self.graph.get_pruner_of_module(layer).get_out_channels(layer)
        new = [channel for channel in range(channels) if (name, channel) not in seen]
        if not new:
            return None
        parts = self._all_at_once(layer, channels) if len(new) == channels else None
        if parts is None:
            parts = self._one_by_one(name, layer, new)
        if not parts or any(part.keys() != parts[0].keys() for part in parts):
            return None
        for part in parts:
            seen |= {(key[0], place) for key, index in part.items() if key[1:] == ("weight", 0) for place in index}
        slots = tuple(Slot(*key, tuple(part[key] for part in parts)) for key in parts[0])
        return Group(name, slots, tuple(dict.fromkeys(slot.layer for slot in slots)))

    def _all_at_once(self, layer: Any, channels: int) -> list[Part] | None:
        """Return the parts of a group whose positions go through all layers in one order; None where they do not."""
        found = self._tied(layer, list(range(channels)))
        if found is None or any(len(index) != channels for index in found.values()):
            return None
        parts: list[Part] = [{key: (index[channel],) for key, index in found.items()} for channel in range(channels)]
        for channel in {0, channels // 3, channels - 1}:
            alone = self._tied(layer, [channel])
            if alone is None or {key: tuple(index) for key, index in alone.items()} != parts[channel]:
                return None
        return parts

    def _one_by_one(self, name: str, layer: Any, channels: Sequence[int]) -> list[Part]:
        """Return the parts of a group, asked for by themselves: a query goes with its key and its value."""
        parts: list[Part] = []
        known: set[int] = set()
        for channel in channels:
            if channel in known:
                continue
            found = self._tied(layer, [channel])
            if found is None:
                return []
            part = {key: tuple(sorted(set(index))) for key, index in found.items()}
            known.update(part[name, "weight", 0])
            parts.append(part)
        return parts

    def _tied(self, layer: Any, channels: list[int]) -> dict[Key, list[int]] | None:
        """Return the positions that output channels of a layer are tied to; None where a tensor is not known."""
        found: dict[Key, list[int]] = {}
        for node, handler, indices in self._walk(layer, channels):
            module = node.module
            if isinstance(module, nn.Parameter):
                owner, _, tensor = self.parameters[module].rpartition(".")
                if heads_of(self.network.get_submodule(owner)) is not None:
                    continue  # goes by head, as a table of position biases does: `_by_heads` adds it
                found.setdefault((owner, tensor, node.pruning_dim), [int(place) for place in indices])
                continue
            if module not in self.names:
                if _pads_channels(node.grad_fn):
                    return None  # the channels after it are others
                continue  # an operation without tensors
            table = OUT if handler.__name__.endswith("out_channels") else IN
            kind = next((kind for kind in table if isinstance(module, kind)), None)
            if kind is None:
                if next(module.parameters(recurse=False), None) is None:
                    continue
                return None
            for tensor, dim in (*table[kind], *_own(module, table is OUT)):
                if getattr(module, tensor, None) is not None:
                    key = (self.names[module], tensor, dim)
                    if key not in found:
                        found[key] = [int(place) for place in indices]
        return found

    def _walk(self, layer: Any, channels: list[int]) -> Iterator[tuple[Any, Any, list[int]]]:
        """Yield the nodes of the graph that output channels of a layer are tied to, on which side, and which positions.

        The same as the graph's own `get_pruning_group`, which works its maps of positions out anew at every call.
        """
        from torch_pruning._helpers import _HybridIndex

        start = self.graph.module2node[layer]
        side = self.graph.get_pruner_of_module(layer).prune_out_channels
        todo = [(start, side, tuple(_HybridIndex(idx=place, root_idx=place) for place in channels))]
        seen = set(todo)
        merged: dict[tuple[Any, Any], dict[int, None]] = {(start, side): dict.fromkeys(channels)}
        while todo:
            node, side, indices = todo.pop()
            for edge in node.dependencies:
                if not edge.is_triggered_by(side):
                    continue
                mapped: Any = list(indices)
                for mapping in edge.index_mapping:
                    mapped = mapped if mapping is None else mapping(mapped)
                step = (edge.target, edge.handler, tuple(mapped))
                if mapped and step not in seen:
                    seen.add(step)
                    todo.append(step)
                    places = merged.setdefault((edge.target, edge.handler), {})
                    places.update(dict.fromkeys(int(index.idx) for index in mapped))
        for (node, side), places in merged.items():
            yield node, side, list(places)


def _widen_pruner() -> Any:
    """Return what tells the graph that the channels of a `Widen` are not those of its input."""
    from torch_pruning.pruner.function import BasePruningFunc

    class WidenPruner(BasePruningFunc):  # type: ignore[misc]
        def prune_out_channels(self, layer: Widen, idxs: Sequence[int]) -> Widen:
            return layer

        def prune_in_channels(self, layer: Widen, idxs: Sequence[int]) -> Widen:
            return layer

        def get_out_channels(self, layer: Widen) -> int:
            return len(layer.sources)

        def get_in_channels(self, layer: Widen) -> int:
            return layer.in_width

    return WidenPruner()


def _pads_channels(node: Any) -> bool:
    """Tell whether an operation of autograd pads (B, C, H, W) images with more channels."""
    if node is None or not node.name().startswith("ConstantPad"):
        return False
    pads = tuple(node._saved_pad)
    return len(pads) > 4 and any(pads[4:6])


def _own(layer: nn.Module, outs: bool) -> Iterator[tuple[str, int]]:
    """Yield further parameters of a layer with one row an output channel, such as gains of standardised weights."""
    width = getattr(layer, "out_channels", None)
    for name, parameter in layer.named_parameters(recurse=False):
        if outs and name not in ("weight", "bias") and parameter.ndim > 1 and parameter.shape[0] == width:
            yield name, 0
