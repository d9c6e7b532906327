"""Tiny basic-block networks for 8 x 8 grey images: the space of the quick start, 46,656 archs."""

from nas_kd.blocks import BasicStage, ConvStem, LinearHead
from nas_kd.space import ElasticSpace

SPACE = ElasticSpace(
    name="digits",
    stem=ConvStem(width=8),
    stages=(
        BasicStage(widths=(4, 6, 8), depths=(1, 2), mids=(2, 4, 8), stride=1),
        BasicStage(widths=(8, 12, 16), depths=(1, 2), mids=(4, 8, 16), stride=2),
        BasicStage(widths=(16, 24, 32), depths=(1, 2), mids=(8, 16, 32), stride=2),
    ),
    head=LinearHead(),
    resolution=8,
)
