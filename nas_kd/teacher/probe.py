"""Dry run of an arbitrary network: where its layers end and the layout of their outputs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn

from nas_kd.errors import SettingError
from nas_kd.nn.static import StaticNet
from nas_kd.teacher.taps import Layer

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd)


@dataclass(frozen=True)
class Site:
    """A module whose output is a feature map.

    Args:
        layer: its path, channels and size.
        layout: ``NCHW``, ``NHWC`` or ``tokens``.
        prefix: class and register tokens before the image's own.
        clone: whether a later layer changes the output in place.
    """

    layer: Layer
    layout: str
    prefix: int
    clone: bool

    def feature(self, out: Any) -> Tensor:
        """Convert the output of the module to (B, C, H, W)."""
        x: Tensor = out if isinstance(out, Tensor) else out[0]
        x = x.clone() if self.clone else x
        if self.layout == "NCHW":
            return x
        if self.layout == "NHWC":
            return x.permute(0, 3, 1, 2)
        grid = x[:, self.prefix :]  # (B, H*W, C)
        return grid.transpose(1, 2).reshape(len(x), -1, self.layer.size, self.layer.size)

    def replaced(self, out: Any, feature: Tensor) -> Any:
        """Return an output of the module with another feature (B, C, H, W) in it; class tokens stay.

        Args:
            out: what the module gave: a tensor, or a tuple of which the first is the feature.
        """
        x: Tensor = out if isinstance(out, Tensor) else out[0]
        new = feature
        if self.layout == "NHWC":
            new = feature.permute(0, 2, 3, 1)
        elif self.layout == "tokens":
            new = torch.cat([x[:, : self.prefix], feature.flatten(2).transpose(1, 2)], dim=1)
        return new if isinstance(out, Tensor) else (new, *out[1:])


@dataclass(frozen=True)
class Probe:
    """The result of a dry run.

    Args:
        layers: the ends of the residual blocks (of the layers, in a network without blocks), in order.
        finer: the same, each behind the first of its parts that has its size: for spaces of more stages than blocks.
        stem: the modules before the first of them, in order.
        sites: every module that can be tapped, in order.
        classifier: name of the layer whose input is the pooled feature, or None.
        num_classes: width of the logits.
    """

    layers: list[Layer]
    finer: list[Layer]
    stem: list[Layer]
    sites: dict[str, Site]
    classifier: str | None
    num_classes: int


@dataclass
class _Call:
    module: nn.Module
    args: tuple[Any, ...]  # those given by name behind the others
    out: Any
    tensor: Tensor | None
    version: int


def probe(module: nn.Module, images: Tensor) -> Probe:
    """Run a network once and find its layers.

    A layer is a residual block: an element of a Sequential or ModuleList that holds a weight and maps a
    feature map to a feature map. If a stage is such an element itself, its blocks are used instead.

    Args:
        images: (2, C, R, R); two, to recognise tensors whose first axis is not the batch.

    Raises:
        SettingError: the network does not return a (B, classes) tensor.
    """
    calls: dict[str, _Call] = {}  # in the order in which the modules end
    counts: Counter[str] = Counter()

    def note(path: str, mod: nn.Module, args: tuple[Any, ...], named: dict[str, Any], out: Any) -> None:
        tensor = _first(out)
        calls[path] = _Call(mod, (*args, *named.values()), out, tensor, -1 if tensor is None else tensor._version)
        counts[path] += 1

    handles = [
        mod.register_forward_hook(lambda *call, path=path: note(path, *call), with_kwargs=True)
        for path, mod in module.named_modules()
        if path
    ]
    try:
        with torch.no_grad():
            logits = module(images)
    finally:
        for handle in handles:
            handle.remove()
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        expected = "a network that returns logits (batch, classes)"
        raise SettingError("teacher.model", type(module).__name__, expected, "wrap it so that it returns logits")
    calls = {path: call for path, call in calls.items() if counts[path] == 1}
    sites = _sites(module, calls, len(images))
    paths = _layers(module, calls, sites)
    layers, finer = ([sites[path].layer for path in some] for some in (paths, _finer(paths, sites)))
    stem = _stem(calls, sites, paths[0]) if paths else []
    return Probe(layers, finer, stem, sites, _classifier(calls, logits), logits.shape[1])


def _first(out: Any) -> Tensor | None:
    if isinstance(out, tuple) and out:
        out = out[0]
    return out if isinstance(out, Tensor) else None


def _sites(module: nn.Module, calls: dict[str, _Call], batch: int) -> dict[str, Site]:
    pairs = isinstance(module, StaticNet)  # own blocks return the feature after and before the activation
    nhwc = getattr(module, "output_fmt", None) == "NHWC"
    prefix = getattr(module, "num_prefix_tokens", None)
    sites: dict[str, Site] = {}
    for path, call in calls.items():
        x = call.tensor
        if x is None or x.shape[0] != batch or not x.is_floating_point():
            continue
        clone = x._version != call.version
        pre = pairs and isinstance(call.out, tuple)
        if x.ndim == 4:
            _, a, b, c = x.shape
            last = a == b and (b != c or nhwc)
            if not last and b != c:
                continue  # not square
            channels, size = (c, a) if last else (a, b)
            sites[path] = Site(Layer(path, channels, size, pre), "NHWC" if last else "NCHW", 0, clone)
        elif x.ndim == 3:
            tokens, channels = x.shape[1:]
            # some networks append their class token only in the last layers
            for extra in (0, 1, tokens - isqrt(tokens) ** 2) if prefix is None else (prefix, 0):
                size = isqrt(max(tokens - extra, 0))
                if size and size * size == tokens - extra:
                    sites[path] = Site(Layer(path, channels, size), "tokens", extra, clone)
                    break
    return sites


def _layers(module: nn.Module, calls: dict[str, _Call], sites: dict[str, Site]) -> list[str]:
    blocks = [p for p in sites if _is_block(calls[p])]
    elements = [p for p in blocks if isinstance(_parent(module, p), CONTAINERS)]
    # a branch inside a larger block is not a layer, even if it is a Sequential of blocks
    whole = [p for p in blocks if not any(_same(calls[e], calls[p]) for e in elements if e.startswith(p + "."))]
    elements = [e for e in elements if not any(e.startswith(p + ".") for p in whole)]
    for candidates in (elements, blocks):
        if len(found := _outermost(candidates, calls)) > 1:
            return _shrinking(found, sites)
    return _shrinking(_plain(calls, sites), sites)


def _is_block(call: _Call) -> bool:
    """Return whether a call is of a module with children and a weight, from a tensor to a tensor."""
    mod = call.module
    args = call.args
    if type(mod) in CONTAINERS or not args or not isinstance(args[0], Tensor):
        return False
    inner = list(mod.modules())[1:]
    return bool(inner) and any(p.ndim > 1 for p in mod.parameters())


def _parent(module: nn.Module, path: str) -> nn.Module:
    return module.get_submodule(path.rpartition(".")[0])


def _outermost(candidates: list[str], calls: dict[str, _Call]) -> list[str]:
    """Drop modules inside a block, and stages that only return the output of their last block."""
    kept: list[str] = []
    for path in sorted(candidates, key=lambda p: p.count(".")):
        if any(path.startswith(outer + ".") for outer in kept):
            continue
        inner = [p for p in candidates if p.startswith(path + ".")]
        if not any(_same(calls[p], calls[path]) for p in inner):
            kept.append(path)
    order = {path: i for i, path in enumerate(calls)}
    return sorted(kept, key=order.__getitem__)


def _same(inner: _Call, outer: _Call) -> bool:
    """Return whether two calls returned the same memory, unchanged in between."""
    a = inner.tensor
    b = outer.tensor
    assert a is not None and b is not None
    return a.data_ptr() == b.data_ptr() and inner.version == outer.version


def _plain(calls: dict[str, _Call], sites: dict[str, Site]) -> list[str]:
    """Find the last norm or activation after every weighted leaf: the layers of a network without blocks."""
    ends: list[str] = []
    for path, call in calls.items():
        if next(call.module.children(), None) is not None or path not in sites:
            continue
        if isinstance(call.module, WEIGHTED):
            ends.append(path)
        elif "Pool" in type(call.module).__name__:
            continue  # it starts the next resolution
        elif ends and sites[path].layer.size == sites[ends[-1]].layer.size:
            ends[-1] = path
    return ends


def _shrinking(paths: list[str], sites: dict[str, Site]) -> list[str]:
    """Keep the layers whose map is no larger than those before, which drops upsampling branches."""
    kept: list[str] = []
    for path in paths:
        if not kept or sites[path].layer.size <= sites[kept[-1]].layer.size:
            kept.append(path)
    return kept


def _finer(paths: list[str], sites: dict[str, Site]) -> list[str]:
    """Put before each layer the first of its outermost parts whose map has the size of its own."""
    found: list[str] = []
    for path in paths:
        inside = [p for p in sites if p.startswith(path + ".") and sites[p].layer.size == sites[path].layer.size]
        found += [min(inside, key=lambda p: p.count(".")), path] if inside else [path]  # the first of equal ones
    return found


def _stem(calls: dict[str, _Call], sites: dict[str, Site], first: str) -> list[Layer]:
    """Return the modules that end before the first layer, outside of it; of those that give the same, the last."""
    before = list(sites)[: list(sites).index(first)]
    size = sites[first].layer.size
    outside = [p for p in before if not p.startswith(first + ".") and sites[p].layer.size >= size]
    apart = [p for i, p in enumerate(outside) if not any(_same(calls[p], calls[q]) for q in outside[i + 1 :])]
    return [sites[path].layer for path in _shrinking(apart, sites)]


def _classifier(calls: dict[str, _Call], logits: Tensor) -> str | None:
    """Find the last linear layer, or 1x1 convolution, whose output has the shape of the logits."""
    for path, call in reversed(calls.items()):
        out = call.tensor
        if isinstance(call.module, WEIGHTED) and out is not None and out.numel() == logits.numel():
            return path if out.shape[1] == logits.shape[1] else None
    return None
