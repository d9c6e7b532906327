"""Basic-block networks for 32 x 32 images, small enough for two CPU cores: 1.6e7 archs, 10.7 MMACs at most."""

from nas_kd.blocks import BasicStage, ConvStem, LinearHead
from nas_kd.space import ElasticSpace

SPACE = ElasticSpace(
    name="resnet_cifar",
    stem=ConvStem(width=16),
    stages=(
        BasicStage(widths=(8, 12, 16), depths=(1, 2, 3), mids=(4, 8, 12, 16), stride=2),
        BasicStage(widths=(16, 24, 32), depths=(1, 2, 3), mids=(8, 16, 24, 32), stride=2),
        BasicStage(widths=(32, 48, 64), depths=(1, 2, 3), mids=(16, 32, 48, 64), stride=2),
    ),
    head=LinearHead(),
    resolution=32,
)
