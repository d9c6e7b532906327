"""What a training of an arch begins with: new weights, a supernet's, or a teacher's."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from nas_kd.data import Data
from nas_kd.nn import at_resolution
from nas_kd.runtime.seeds import seeded
from nas_kd.space import Arch, ElasticSpace
from nas_kd.supernet import Supernet, calibrate
from nas_kd.train.weights import load_weights

CALIBRATED = 1024  # training images for calibrating the norms of inherited weights


def starting_network(
    arch: Arch,
    space: ElasticSpace,
    data: Data,
    seed: int,
    supernet: Supernet | str | Path | None = None,
) -> nn.Module:
    """Build the network of an arch.

    Args:
        arch: an arch of ``space``.
        seed: seed of new weights.
        supernet: shared weights to copy, or a .safetensors file of the arch's own; None draws new ones. Where shared
            ones were trained before, the norms are calibrated: the training begins near its end. Elsewhere they find
            their values on the way.
    """
    if isinstance(supernet, str | Path):
        network = space.build(arch, data.num_classes, data.in_chans)
        load_weights(network, Path(supernet))
        return network
    if supernet is None:
        seeded(seed, "init", arch.key)
        return space.build(arch, data.num_classes, data.in_chans)
    if not space.pretrained:
        seeded(seed, "init", arch.key)
        return supernet.extract(arch)
    images = (at_resolution(batch.x, arch.resolution) for batch in data.train.clean(256, limit=CALIBRATED))
    (norm,) = calibrate(supernet, images, archs=[arch])
    return supernet.extract(arch, norm)
