"""Latency of one network in several runtimes, taken in turns, so that what slows the machine slows all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nas_kd.cost.latency import device_name, quartiles, timed_in_turns


@dataclass(frozen=True)
class LatencyRow:
    """A latency and its conditions.

    Args:
        runtime: what ran the network.
        batch_size: images a pass.
        median_ms: median milliseconds of a pass over the whole batch.
        iqr_ms: interquartile range in milliseconds.
        threads: of the runtime.
        repeats: timed passes.
        device: name of the processor.
    """

    runtime: str
    batch_size: int
    median_ms: float
    iqr_ms: float
    threads: int
    repeats: int
    device: str


@torch.no_grad()
def latencies(
    runs: Mapping[str, Callable[[Tensor], Tensor]],
    shape: Callable[[], tuple[int, int, int]],
    batch_sizes: Sequence[int],
    repeats: int = 30,
) -> tuple[LatencyRow, ...]:
    """Time networks on the CPU, pass by pass in turns.

    Args:
        runs: runtime to what maps images (B, C, H, W) to outputs.
        shape: returns (C, H, W).
        batch_sizes: images a pass.
        repeats: timed passes of each.

    Returns:
        One row a batch size and runtime.
    """
    rows = []
    for size in batch_sizes:
        x = torch.randn(size, *shape(), generator=torch.Generator().manual_seed(0))
        calls = {name: lambda run=run, x=x: run(x) for name, run in runs.items()}
        for name, times in timed_in_turns(calls, repeats=repeats).items():
            median, iqr = quartiles(times)
            device = device_name(torch.device("cpu"))
            rows.append(LatencyRow(name, size, median, iqr, torch.get_num_threads(), repeats, device))
    return tuple(rows)


def latency_table(rows: Sequence[LatencyRow]) -> str:
    """Write latencies as lines of text: one row a runtime, two columns a batch size."""
    sizes = list(dict.fromkeys(row.batch_size for row in rows))
    names = list(dict.fromkeys(row.runtime for row in rows))
    width = max(map(len, names))
    lines = [f"{'':{width}}" + "".join(f"  {f'batch {size}, ms':>16} {'IQR':>7}" for size in sizes)]
    for name in names:
        cells = [next(row for row in rows if (row.runtime, row.batch_size) == (name, size)) for size in sizes]
        lines.append(f"{name:{width}}" + "".join(f"  {row.median_ms:16.3f} {row.iqr_ms:7.3f}" for row in cells))
    one = rows[0]
    return "\n".join([*lines, f"{one.threads} threads, {one.repeats} passes each in turns, {one.device}"])
