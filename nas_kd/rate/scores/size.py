"""Controls that use no data, which a useful score must beat."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nas_kd.rate.scores.base import Bench, Score
from nas_kd.runtime.seeds import seed_for
from nas_kd.space import Arch

WIDTHS = ("mid", "out", "hidden", "features")  # settings of a resolved layer that are widths of a convolution


def macs(bench: Bench, archs: Sequence[Arch]) -> list[float]:
    """Count multiply-adds."""
    return [float(bench.space.cost(arch, **bench.cost).macs) for arch in archs]


def params(bench: Bench, archs: Sequence[Arch]) -> list[float]:
    """Count parameters."""
    return [float(bench.space.cost(arch, **bench.cost).params) for arch in archs]


def log_widths(bench: Bench, archs: Sequence[Arch]) -> list[float]:
    """Add up the logarithms of all layers' widths.

    Source: the size control that ranks NATS-Bench-SS best.
    """
    found = []
    for arch in archs:
        layers = bench.space.layers(arch, bench.data.num_classes, bench.data.in_chans)
        body = [layer for layer in layers if layer["stage"] is not None]
        found.append(sum(math.log(layer[name]) for layer in body for name in WIDTHS if layer.get(name)))
    return found


def depth(bench: Bench, archs: Sequence[Arch]) -> list[float]:
    """Count the layers of all stages."""
    return [float(arch.depth) for arch in archs]


def last_depth(bench: Bench, archs: Sequence[Arch]) -> list[float]:
    """Count the layers of the last stage."""
    return [float(len(arch.stages[-1].layers)) for arch in archs]


def random(bench: Bench, archs: Sequence[Arch]) -> list[float]:
    """Draw a number for each arch, which depends on the arch and the seed alone."""
    return [float(np.random.default_rng(seed_for(bench.seed, "random score", arch.key)).random()) for arch in archs]


MACS = Score("MACs", macs, True, "size")
PARAMS = Score("parameters", params, True, "size")
LOG_WIDTHS = Score("sum of log widths", log_widths, True, "size")
DEPTH = Score("depth", depth, True, "size")
MINUS_DEPTH = Score("minus depth", depth, False, "size")
MINUS_LAST_DEPTH = Score("fewer layers in the last stage", last_depth, False, "size")
RANDOM = Score("random", random, True, "control")
