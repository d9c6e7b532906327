"""Networks of any class with narrower layers: describe how one was cut, and cut another the same way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from nas_kd.nn.widen import Widen

COUNTS = ("num_heads", "num_attention_heads", "n_heads")  # what attention layers call the number of their heads
# other attributes of theirs that depend on it
WIDTHS = ("attn_dim", "inner_dim", "all_head_dim", "all_head_size")
HEADS = (*COUNTS, *WIDTHS)
MOST_OUTPUTS = 16  # of a module; a student folder may be somebody else's


@dataclass(frozen=True)
class CutPlan:
    """How a network differs from the one that its class builds.

    Args:
        left_out: paths of modules replaced by the identity.
        shapes: shapes of the smaller tensors, by name.
        numbers: attributes that change with them, by module and name.
        sources: what goes on through shortcuts without weights, by their path: see `Widen`.
        more: of modules left out that gave several outputs, how many behind the first.
    """

    left_out: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]]
    numbers: Mapping[str, Mapping[str, int]]
    sources: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    more: Mapping[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON types."""
        shapes = {name: list(shape) for name, shape in self.shapes.items()}
        return {
            "left_out": list(self.left_out),
            "shapes": shapes,
            "numbers": {k: dict(v) for k, v in self.numbers.items()},
            "sources": {k: list(v) for k, v in self.sources.items()},
        } | ({"more": dict(self.more)} if self.more else {})

    @staticmethod
    def from_dict(value: Mapping[str, Any]) -> CutPlan:
        """Read what `to_dict` wrote."""
        shapes = {str(name): tuple(int(n) for n in shape) for name, shape in value["shapes"].items()}
        numbers = {str(path): {str(k): int(v) for k, v in given.items()} for path, given in value["numbers"].items()}
        sources = {str(path): tuple(int(n) for n in given) for path, given in value.get("sources", {}).items()}
        more = {str(path): int(count) for path, count in value.get("more", {}).items()}
        if not all(0 < count <= MOST_OUTPUTS for count in more.values()):
            raise ValueError(f"more: expected 1 to {MOST_OUTPUTS}")
        return CutPlan(tuple(str(path) for path in value["left_out"]), shapes, numbers, sources, more)


def plan_of(network: nn.Module, whole: nn.Module) -> CutPlan:
    """Describe how a cut network differs from the uncut one of its class.

    Args:
        network: cut.
        whole: what it was cut from: the uncut one, or one that was cut before and says how, as ``cut_plan``.
    """
    modules = dict(network.named_modules())
    left_out = [
        path
        for path, module in whole.named_modules()
        if isinstance(modules.get(path), nn.Identity) and not isinstance(module, nn.Identity)
    ]
    tensors = {**dict(whole.named_parameters(remove_duplicate=False)), **dict(whole.named_buffers())}
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in network.state_dict().items()
        if tensor.shape != tensors[name].shape
    }
    numbers: dict[str, dict[str, int]] = {}
    for path, module in whole.named_modules():
        for name in HEADS:
            given = getattr(modules.get(path), name, None)
            if isinstance(given, int) and given != getattr(module, name):
                numbers.setdefault(path, {})[name] = given
    sources = {}
    for path, module in whole.named_modules():
        own = modules.get(path)
        if isinstance(module, Widen) and isinstance(own, Widen) and own.sources != module.sources:
            sources[path] = (own.in_width, *own.sources)
    more = {path: modules[path].more for path in left_out if getattr(modules[path], "more", 0)}
    plan = CutPlan(tuple(left_out), shapes, numbers, sources, more)
    before = getattr(whole, "cut_plan", None)
    return _after(before, plan, network) if isinstance(before, CutPlan) else plan


def _after(before: CutPlan, last: CutPlan, network: nn.Module) -> CutPlan:
    """Describe a network that was cut twice beside the uncut one.

    Args:
        before: how the first cut differs from the uncut network.
        last: how the second differs from the first.
        network: cut twice.
    """
    tensors = network.state_dict()
    modules = dict(network.named_modules())
    shapes = {name: tuple(tensors[name].shape) for name in {**before.shapes, **last.shapes} if name in tensors}
    numbers = {
        path: {**before.numbers.get(path, {}), **last.numbers.get(path, {})}
        for path in {**before.numbers, **last.numbers}
        if path in modules
    }
    sources = {path: places for path, places in {**before.sources, **last.sources}.items() if path in modules}
    left_out = (*before.left_out, *last.left_out)
    inner = {path for path in left_out if any(path.startswith(f"{other}.") for other in left_out)}
    outer = tuple(path for path in left_out if path not in inner)
    more = {path: count for path, count in {**before.more, **last.more}.items() if path in outer}
    return CutPlan(outer, shapes, numbers, sources, more)


def cut_to(network: nn.Module, plan: CutPlan) -> nn.Module:
    """Cut an uncut network to the shapes of a plan, in place; the smaller tensors are uninitialised.

    Raises:
        KeyError, AttributeError, TypeError: the plan describes another network.
    """
    for path in plan.left_out:
        parent, _, name = path.rpartition(".")
        owner = network.get_submodule(parent)
        if name not in owner._modules:
            raise KeyError(path)
        owner._modules[name] = LeftOut(plan.more.get(path, 0))
    layers = set()
    for name, shape in plan.shapes.items():
        path, _, tensor = name.rpartition(".")
        layer = network.get_submodule(path)
        set_tensor(layer, tensor, torch.empty(shape, dtype=getattr(layer, tensor).dtype))
        layers.add(path)
    for path in layers:
        update_sizes(network.get_submodule(path))
    for path, numbers in plan.numbers.items():
        for name, value in numbers.items():
            if name not in HEADS:
                raise KeyError(name)
            setattr(network.get_submodule(path), name, value)
    for path, (in_width, *places) in plan.sources.items():
        shortcut: Any = network.get_submodule(path)
        shortcut.set_sources(places, in_width)
    network.cut_plan = plan  # type: ignore[assignment]  # for those who cut it again
    return network


class LeftOut(nn.Identity):
    """Stands in the place of a module that is left out: hands its input on, whatever else it is given.

    Args:
        more: outputs of that module behind its first, which nobody needs.
    """

    def __init__(self, more: int = 0) -> None:
        super().__init__()
        self.more = more

    def forward(self, input: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return the input; a mask may be beside it."""
        return with_none(input, self.more)


def with_none(first: Tensor, more: int) -> Any:
    """Return what a module of several outputs gives, with None for all but the first.

    Args:
        first: the first.
        more: how many there are behind it; 0 returns it as it is.
    """
    return (first, *[None] * more) if more else first


def with_first(out: Any, first: Tensor) -> Any:
    """Return another first output in the place of what a module gives, with None for those behind it."""
    return with_none(first, 0 if isinstance(out, Tensor) else len(out) - 1)


def first_of(out: Any) -> Tensor:
    """Return the first of what a module gives, or all of it."""
    found: Tensor = out if isinstance(out, Tensor) else out[0]
    return found


def heads_of(layer: nn.Module) -> int | None:
    """Return the number of heads of an attention layer; None of other layers."""
    found = next((getattr(layer, name) for name in COUNTS if hasattr(layer, name)), None)
    return found if isinstance(found, int) else None


def set_tensor(layer: nn.Module, name: str, tensor: Tensor) -> None:
    """Replace a layer's parameter or buffer by a tensor."""
    if name in layer._parameters:
        layer._parameters[name] = nn.Parameter(tensor)
    elif name in layer._buffers:
        layer._buffers[name] = tensor
    else:
        raise AttributeError(f"{type(layer).__name__} has no tensor {name!r}")


def update_sizes(layer: nn.Module) -> None:
    """Update the sizes that a layer stores as attributes to those of its tensors."""
    weight: Any = getattr(layer, "weight", None)
    if isinstance(layer, nn.modules.conv._ConvNd):
        outs = weight.shape[0]
        layer.groups = layer.groups * outs // layer.out_channels if layer.groups > 1 else 1
        layer.out_channels = outs
        layer.in_channels = weight.shape[1] * layer.groups
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = weight.shape
    elif isinstance(layer, nn.modules.batchnorm._BatchNorm):
        tensor: Any = layer.running_mean if weight is None else weight
        layer.num_features = len(tensor)
    elif isinstance(layer, nn.LayerNorm):
        layer.normalized_shape = tuple(weight.shape)
    elif isinstance(layer, nn.Embedding):
        layer.num_embeddings, layer.embedding_dim = weight.shape
    elif isinstance(layer, nn.GroupNorm):
        layer.num_groups = layer.num_groups * len(weight) // layer.num_channels
        layer.num_channels = len(weight)
