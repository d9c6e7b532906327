"""The norm of the gradient of a network that was never trained."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from nas_kd.nn import at_resolution
from nas_kd.rate.scores.base import Bench, Score
from nas_kd.runtime.device import place
from nas_kd.runtime.seeds import seeded
from nas_kd.space import Arch

BATCH = 128


def gradient_norm(bench: Bench, archs: Sequence[Arch]) -> list[float]:
    """Build each arch with new weights and measure the gradient of the label loss on one batch.

    Source: zero-cost proxy "grad_norm" (Abdelfattah et al. 2021).
    """
    batch = next(iter(bench.data.train.clean(BATCH, limit=BATCH))).to(bench.runtime.device)
    found = []
    for arch in archs:
        seeded(bench.seed, "gradient norm", arch.key)
        network = place(bench.space.build(arch, bench.data.num_classes, bench.data.in_chans), bench.runtime).train()
        bench.task.loss(network(at_resolution(batch.x, arch.resolution)), batch.y).backward()
        squares = [p.grad.square().sum() for p in network.parameters() if p.grad is not None]
        found.append(float(torch.stack(squares).sum().sqrt()))
        bench.used.student += 3 * len(batch.y)
    return found


GRADIENT_NORM = Score("gradient norm", gradient_norm, True, "control")
