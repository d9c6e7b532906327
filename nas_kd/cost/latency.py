"""Latency of a network on this machine: the median of many forward passes after warm-up."""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nas_kd.nn import inputs
from nas_kd.nn.unmeasured import any_values


class Latency(NamedTuple):
    """A measured latency and its conditions.

    Args:
        median_ms: median milliseconds of a forward pass over the whole batch.
        iqr_ms: interquartile range in milliseconds.
        batch_size: images per pass.
        device: name of the device, see `device_name`.
        repeats: number of timed passes.
    """

    median_ms: float
    iqr_ms: float
    batch_size: int
    threads: int
    device: str
    repeats: int


@lru_cache
def device_name(device: torch.device) -> str:
    """Return the name of a device, so that times of different machines are not mixed."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    facts = Path("/proc/cpuinfo")
    named = re.search(
        r"^model name\s*:\s*(.+)$",
        facts.read_text(encoding="utf-8", errors="replace") if facts.exists() else "",
        re.MULTILINE,
    )
    return named[1].strip() if named else platform.processor() or platform.machine() or device.type


@torch.no_grad()
def measure_latency(
    module: nn.Module,
    resolution: int,
    in_chans: int = 3,
    *,
    batch_size: int = 1,
    warmup: int = 5,
    repeats: int = 30,
    device: torch.device | str = "cpu",
) -> Latency:
    """Time a network's forward pass in evaluation mode.

    Args:
        module: the network; its mode is restored, and it is moved to the device.
        resolution: height and width of the input in pixels, or tokens of a text.
        batch_size: images or texts per pass.
        warmup: untimed passes.
        repeats: timed passes.
    """
    device = torch.device(device)
    training = module.training
    module.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    x = inputs.example(module, in_chans, resolution, batch_size)  # no zeros, on which some kernels are faster
    x = x.contiguous(memory_format=torch.channels_last) if isinstance(x, Tensor) else x

    def call() -> None:
        module(x)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    with any_values(module):
        times = timed_in_turns({"": call}, warmup, repeats)[""]
    module.train(training)
    return Latency(*quartiles(times), batch_size, torch.get_num_threads(), device_name(device), repeats)


def timed_in_turns(
    calls: Mapping[str, Callable[[], object]], warmup: int = 5, repeats: int = 30
) -> dict[str, list[float]]:
    """Time functions, one call of each after the other, so that all meet the same state of the machine.

    Args:
        calls: functions by name.
        warmup: untimed calls of each.
        repeats: timed calls of each.

    Returns:
        Seconds of every call, by name.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for index in range(warmup + repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if index >= warmup:
                times[name].append(time.perf_counter() - start)
    return times


def quartiles(seconds: list[float]) -> tuple[float, float]:
    """Return median and interquartile range of times, in milliseconds."""
    ms = torch.tensor(seconds, dtype=torch.float64) * 1e3
    low, median, high = torch.quantile(ms, torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)).tolist()
    return median, high - low
