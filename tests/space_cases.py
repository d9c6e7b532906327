"""The spaces that the contracts cover: every module of search_spaces, and small ones with what those lack."""

from __future__ import annotations

import torch
from elastic_spaces import ELASTIC
from torch import Tensor, nn

import nas_kd
from nas_kd.blocks import BottleneckStage, ConvStem, MobileHead
from nas_kd.space import Arch, ElasticSpace, space_names

CLASSES, CHANNELS = 7, 3

GROUPED = ElasticSpace(
    "grouped",
    ConvStem((8, 16), act="relu"),
    (
        BottleneckStage(widths=(16, 32), depths=(1, 2), expands=(0.5, 1.0), group_width=8),
        BottleneckStage(widths=(32, 64), depths=(1, 3), expands=(0.25, 0.5), stride=2, group_width=4),
    ),
    MobileHead((8, 12), channels=20),
    resolution=16,
    resolutions=(12, 16),
)
PUBLISHED = tuple(space_names())
CASES: dict[str, ElasticSpace] = {name: nas_kd.load_space(name) for name in PUBLISHED}
CASES |= {f"small {space.name}": space for space in (*ELASTIC, GROUPED)}


def fit(space: ElasticSpace, size: int) -> int:
    """Return the smallest input size that is legal and not below ``size``, in pixels."""
    multiple = space.stem.multiple
    return -(-max(size, space.stride) // multiple) * multiple


def quick(space: ElasticSpace) -> int:
    """Return an input size at which even the largest spaces run in milliseconds: 2 x 2 pixels at the end."""
    return min(space.resolution, fit(space, 2 * space.stride))


def odd(space: ElasticSpace) -> int:
    """Return a size that no stride divides, or, for patches, one that the position embedding does not have."""
    return fit(space, quick(space) + 1) if space.stem.multiple > 1 else quick(space) - 1


def images(count: int, resolution: int, seed: int = 0, channels: int = CHANNELS) -> Tensor:
    return torch.randn(count, channels, resolution, resolution, generator=torch.Generator().manual_seed(seed))


def some_archs(space: ElasticSpace, count: int) -> list[Arch]:
    return [space.smallest(), space.largest(), *(space.sample(seed) for seed in range(count))]


def shaken(space: ElasticSpace) -> nas_kd.Supernet:
    """Return a supernet in whose weights nothing is 0 or 1, so that every branch and every norm matters."""
    net = nas_kd.Supernet(space, CLASSES, CHANNELS)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in net.parameters():
            fan = max(1.0, weight[0].numel()) if weight.ndim > 1 else 4.0
            nn.init.normal_(weight, 0.7 * (weight.ndim == 1), fan**-0.5, generator)
    return net
