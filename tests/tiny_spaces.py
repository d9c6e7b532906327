"""One small space a family, with everything elastic that the family offers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nas_kd.blocks import (
    BasicStage,
    BottleneckStage,
    ConvStem,
    LinearHead,
    MBStage,
    MobileHead,
    NormHead,
    PatchStem,
    ResNetDStem,
    ViTStage,
)
from nas_kd.space import Arch, ElasticSpace
from nas_kd.supernet import Supernet

BASIC = ElasticSpace(
    "basic",
    ConvStem(6),
    (
        BasicStage(widths=(4, 6), depths=(1, 2, 3), mids=(4, 6, 8)),
        BasicStage(widths=(8, 12), depths=(1, 2, 3), mids=(4, 8, 12), stride=2),
    ),
    LinearHead(),
    resolution=8,
)
MOBILE = ElasticSpace(
    "mobile",
    ConvStem((6, 8), act="silu"),
    (
        MBStage(widths=(8, 16), depths=(1, 2, 3), kernels=(3, 5, 7), expands=(1, 2, 3), act="silu"),
        MBStage(widths=(16, 24), depths=(1, 2), kernels=(3, 5), expands=(2, 3), stride=2, act="hardswish"),
    ),
    MobileHead((12, 20), expand=2),
    resolution=8,
    resolutions=(6, 8, 10),
)
POOLED = ElasticSpace(
    "pooled",
    ConvStem((8, 16), act="silu"),
    (
        MBStage(widths=(8, 16), depths=(1, 2), kernels=(3, 5), expands=(1,), ses=(False,), uniform=True, pooled=True),
        MBStage(
            widths=(16, 24),
            depths=(1, 2, 3),
            kernels=(3, 5),
            expands=(2, 3, 4),
            ses=(True,),
            stride=2,
            uniform=True,
            pooled=True,
        ),
    ),
    LinearHead((16, 24), "silu"),
    resolution=9,
)
BOTTLENECK = ElasticSpace(
    "bottleneck",
    ResNetDStem(mid=(4, 8), width=(8, 16)),
    (
        BottleneckStage(widths=(16, 24), depths=(1, 2), expands=(0.5, 0.75, 1)),
        BottleneckStage(widths=(32, 48), depths=(1, 2, 3), expands=(0.25, 0.5), stride=2, group_width=4),
    ),
    LinearHead(),
    resolution=16,
)
VIT = ElasticSpace(
    "vit",
    PatchStem((12, 18, 24), patch=4, grid=2),
    (ViTStage(widths=(12, 18, 24), depths=(1, 2, 3), heads=(1, 2, 3), mlp_ratios=(2, 3, 4), head_dim=4),),
    NormHead(),
    resolution=8,
    resolutions=(8, 12),
)
FAMILIES = (BASIC, MOBILE, POOLED, BOTTLENECK, VIT)


def full_net(space: ElasticSpace, classes: int = 6, in_chans: int = 3, **settings: bool) -> Supernet:
    """Return a supernet in which no branch is zero and no matrix the identity, so that everything counts."""
    net = Supernet(space, classes, in_chans, seed=1, **settings)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in net.named_parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, 0.8, 0.3, generator=generator)
        elif "matrices" in name:
            with torch.no_grad():
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return net


def images(space: ElasticSpace) -> Tensor:
    """Draw five images in float64, as large as the space wants them."""
    return torch.randn(5, 3, *2 * [space.resolution], generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def outputs(net: Supernet, archs: list[Arch]) -> list[Tensor]:
    """Return the logits of each arch on `images`."""
    x = images(net.space)
    return [net(x, arch).detach() for arch in archs]


def close(a: list[Tensor], b: list[Tensor]) -> list[bool]:
    """Say of each pair whether it is equal up to rounding."""
    return [torch.allclose(one, other, rtol=1e-9, atol=1e-9) for one, other in zip(a, b, strict=True)]
