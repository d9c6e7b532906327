"""Latency of single layers, timed inside whole networks, with realistic caches."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from nas_kd.nn.static import Kind, StaticNet

LayerKey = tuple[Any, ...]


def layer_key(layer: Mapping[str, Any]) -> LayerKey:
    """Return what a layer's time depends on: its settings and its stage, which determines its input size."""
    return tuple(sorted((name, repr(value)) for name, value in layer.items()))


@torch.no_grad()
def layer_times(
    layers: Sequence[Mapping[str, Any]],
    kinds: Mapping[str, Kind],
    resolution: int,
    in_chans: int = 3,
    *,
    batch_size: int = 1,
    warmup: int = 3,
    repeats: int = 15,
    device: torch.device | str = "cpu",
) -> dict[LayerKey, float]:
    """Return the median milliseconds of each distinct layer, over all its occurrences in the network.

    Args:
        resolution: height and width of the input in pixels.
        batch_size: images per pass.
        warmup: untimed passes.
        repeats: timed passes.
    """
    device = torch.device(device)
    net = StaticNet(layers, kinds).to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    parts: list[nn.Module] = [net.stem, *(block for stage in net.stages for block in stage.layers), net.head]
    x = torch.randn(batch_size, in_chans, resolution, resolution, device=device)
    x = x.contiguous(memory_format=torch.channels_last)
    started: dict[int, float] = {}
    times: list[list[float]] = [[] for _ in parts]

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    for number, part in enumerate(parts):
        part.register_forward_pre_hook(lambda module, args, at=number: started.update({at: now()}))
        part.register_forward_hook(lambda module, args, out, at=number: times[at].append(now() - started[at]))
    for _ in range(warmup + repeats):
        net(x)
    found: dict[LayerKey, list[float]] = {}
    for layer, seconds in zip(layers, times, strict=True):
        found.setdefault(layer_key(layer), []).extend(seconds[warmup:])
    return {key: 1e3 * float(torch.tensor(seconds, dtype=torch.float64).median()) for key, seconds in found.items()}
