"""Spaces small enough to walk through, each elastic in another way."""

from __future__ import annotations

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
from nas_kd.space import ElasticSpace

PLAIN = ElasticSpace(
    "plain",
    ConvStem(4),
    (
        BasicStage(widths=(4, 6), depths=(1, 2), mids=(2, 4), stride=2),
        BasicStage(widths=(6, 8), depths=(1, 3), mids=(2, 4), stride=2),
    ),
    LinearHead(),
    resolution=8,
)
ENDS = ElasticSpace(
    "ends",
    ConvStem((4, 6)),
    (
        BasicStage(widths=(4, 6), depths=(1, 2), mids=(2, 4), stride=2),
        BasicStage(widths=(6, 8), depths=(1,), mids=(2, 4)),
    ),
    LinearHead((4, 8, 12)),
    resolution=8,
    resolutions=(6, 8, 10),
)
MOBILE = ElasticSpace(
    "mobile",
    ConvStem((8, 16), act="silu"),
    (
        MBStage(widths=(8, 16), depths=(1, 2), kernels=(3, 5), expands=(1,), ses=(False,), uniform=True, pooled=True),
        MBStage(widths=(16,), depths=(1, 2), kernels=(3,), expands=(2, 3), ses=(False, True), stride=2),
    ),
    MobileHead((8, 12), expand=2),
    resolution=8,
)
BOTTLENECK = ElasticSpace(
    "bottleneck",
    ResNetDStem(mid=8, width=(8, 16)),
    (BottleneckStage(widths=(16, 24), depths=(1, 2), expands=(0.25, 0.5)),),
    LinearHead((4, 8)),
    resolution=16,
)
VIT = ElasticSpace(
    "vit",
    PatchStem((8, 12), patch=4, grid=2),
    (
        ViTStage(widths=(8, 12), depths=(1, 2), heads=(1, 2), mlp_ratios=(2,), head_dim=4),
        ViTStage(widths=(8, 12), depths=(1, 2), heads=(1,), mlp_ratios=(2, 3), head_dim=4),
    ),
    NormHead(),
    resolution=8,
    resolutions=(8, 12),
)
ELASTIC = (PLAIN, ENDS, MOBILE, BOTTLENECK, VIT)
