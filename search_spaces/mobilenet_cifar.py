"""Inverted-residual networks for 32 x 32 images, meant for GPUs: 3,276 candidates a stage, 3.8e17 archs."""

from nas_kd.blocks import ConvStem, LinearHead, MBStage
from nas_kd.space import ElasticSpace

SPACE = ElasticSpace(
    name="mobilenet_cifar",
    stem=ConvStem(width=16, act="silu"),
    stages=(
        MBStage(widths=(16, 24), depths=(1, 2, 3), stride=1),
        MBStage(widths=(24, 32), depths=(1, 2, 3), stride=2),
        MBStage(widths=(40, 48), depths=(1, 2, 3), stride=2),
        MBStage(widths=(64, 80), depths=(1, 2, 3), stride=1),
        MBStage(widths=(96, 112), depths=(1, 2, 3), stride=2),
    ),
    head=LinearHead(features=256, act="silu"),
    resolution=32,
)
