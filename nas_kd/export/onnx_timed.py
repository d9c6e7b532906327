"""Latency in ONNX Runtime on this CPU, of whole networks and of their layers, as `nas_kd.cost` measures it in torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from nas_kd.cost.latency import Latency, device_name, measure_latency, quartiles, timed_in_turns
from nas_kd.cost.layers import LayerKey, layer_key
from nas_kd.export.formats.base import need_packages
from nas_kd.export.formats.onnx import FORMAT, save_program, session
from nas_kd.nn.static import Kind, StaticNet
from nas_kd.nn.unmeasured import any_values

ONNX = "onnxruntime"
CPU = torch.device("cpu")
TOGETHER = 32  # layers that are exported together


def need_runtime(runtime: str) -> None:
    """Refuse a runtime that is not installed.

    Raises:
        SettingError: naming the extra that brings it.
    """
    if runtime == ONNX:
        need_packages("search.latency_runtime", runtime, FORMAT.packages, FORMAT.extra)


def timed_on(runtime: str, device: torch.device) -> str:
    """Return the name of the device that latencies are measured on, and of the runtime where it is not torch."""
    return device_name(device) if runtime != ONNX else f"{device_name(CPU)}, ONNX Runtime"


def latency_in(
    runtime: str,
    module: nn.Module,
    resolution: int,
    in_chans: int = 3,
    *,
    batch_size: int = 1,
    repeats: int = 30,
    device: torch.device | str = "cpu",
) -> Latency:
    """Time a network's forward pass in one of the runtimes.

    Args:
        runtime: torch or onnxruntime, which runs it on this CPU, whatever the device.
        module: the network.
        resolution: height and width of the input in pixels.
        in_chans: channels of the input.
        batch_size: images per pass.
        repeats: timed passes.
        device: where torch runs it.
    """
    if runtime != ONNX:
        return measure_latency(module, resolution, in_chans, batch_size=batch_size, repeats=repeats, device=device)
    x = torch.randn(batch_size, in_chans, resolution, resolution)
    (call,) = _calls([(module, x)])
    times = timed_in_turns({"": call}, repeats=repeats)[""]
    return Latency(*quartiles(times), batch_size, torch.get_num_threads(), timed_on(runtime, CPU), repeats)


@torch.no_grad()
def onnx_layer_times(
    networks: Sequence[Sequence[Mapping[str, Any]]],
    kinds: Mapping[str, Kind],
    resolution: int,
    in_chans: int = 3,
    *,
    batch_size: int = 1,
    repeats: int = 15,
) -> dict[LayerKey, float]:
    """Return the median milliseconds of each distinct layer, run by itself on what it is given in a network.

    What a call takes that does nothing is counted once a network, with the stem, which every network has.

    Args:
        networks: the layers of each.
        kinds: the classes that build them.
        resolution: height and width of the input in pixels.
        in_chans: channels of the input.
        batch_size: images per pass.
        repeats: timed passes.
    """
    x = torch.randn(batch_size, in_chans, resolution, resolution)
    found: dict[LayerKey, tuple[nn.Module, Tensor]] = {}
    stems = {layer_key(layers[0]) for layers in networks}
    for layers in networks:
        for key, part in zip(map(layer_key, layers), _given(StaticNet(layers, kinds).eval(), x), strict=True):
            found.setdefault(key, part)
    (nothing,) = _calls([(nn.Identity(), x)])
    times = {}
    for some in _parts([*found.items()]):
        for (key, _), call in zip(some, _calls([part for _, part in some]), strict=True):
            taken = timed_in_turns({"layer": call, "nothing": nothing}, warmup=3, repeats=repeats)
            idle = 0.0 if key in stems else quartiles(taken["nothing"])[0]
            times[key] = max(0.0, quartiles(taken["layer"])[0] - idle)
    return times


def _given(net: StaticNet, x: Tensor) -> Iterator[tuple[nn.Module, Tensor]]:
    """Return each layer of a network with what it is given."""
    stages: Any = net.stages
    parts: list[nn.Module] = [net.stem, *(block for stage in stages for block in stage.layers), net.head]
    given: list[Tensor] = []
    hooks = [part.register_forward_pre_hook(lambda module, args: given.append(args[0])) for part in parts]
    net(x)
    for hook in hooks:
        hook.remove()
    return zip(parts, given, strict=True)


def _parts(items: list[Any]) -> Iterator[list[Any]]:
    return (items[at : at + TOGETHER] for at in range(0, len(items), TOGETHER))


class _Beside(nn.Module):
    """Modules side by side, of which each has an input of its own and of which the first output counts."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(deepcopy(module).cpu().eval() for module in modules)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Map the input of each to its output."""
        outputs = (part(x) for part, x in zip(self.parts, inputs, strict=True))
        return tuple(out[0] if isinstance(out, tuple) else out for out in outputs)


def _calls(parts: Sequence[tuple[nn.Module, Tensor]]) -> list[Callable[[], object]]:
    """Return what runs each module on its input in ONNX Runtime; they are exported together, which takes seconds."""
    import onnx

    beside = _Beside([module for module, _ in parts])
    names = [f"x{at}" for at in range(len(parts))]
    ends = [f"y{at}" for at in range(len(parts))]
    with TemporaryDirectory() as folder, any_values(beside):
        path = Path(folder) / "network.onnx"
        save_program(beside, tuple(x for _, x in parts), path, names, ends)
        extractor = onnx.utils.Extractor(onnx.load(path))
        calls = []
        for name, end, (_, x) in zip(names, ends, parts, strict=True):
            onnx.save(extractor.extract_model([name], [end]), path)
            calls.append(_run(session(path), {name: x.numpy()}))
    return calls


def _run(opened: Any, images: dict[str, Any]) -> Callable[[], object]:
    return lambda: opened.run(None, images)
