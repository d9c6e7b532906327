"""OFA's ResNet-50-D: 13^4 x 3^10 x 2 x 3^6 = 2.5e12 archs of 1.0 to 7.5 GMACs at 224 px.

Source: Once-for-All (Cai et al. 2020), released code (OFAResNets); the blocks are those of ResNet-D (He et al. 2018).
The number is OFA's. Middle widths of the stem of 20 and 24 both round to 24, so 1.6e12 of the networks differ.
"""

from nas_kd.blocks import BottleneckStage, LinearHead, ResNetDStem
from nas_kd.space import Candidate, ElasticSpace, make_divisible


def _widths(channels: int) -> tuple[int, ...]:
    return tuple(make_divisible(channels * share) for share in (0.65, 0.8, 1.0))


def _stage(width: int, depth: int, stride: int) -> BottleneckStage:
    depths = (depth, depth + 1, depth + 2)
    return BottleneckStage(widths=_widths(width), depths=depths, expands=(0.2, 0.25, 0.35), stride=stride)


SPACE = ElasticSpace(
    name="ofa_resnet50d",
    stem=ResNetDStem(mid=tuple(width // 2 for width in _widths(64)), width=_widths(64)),
    stages=(_stage(256, 2, 1), _stage(512, 2, 2), _stage(1024, 4, 2), _stage(2048, 2, 2)),
    head=LinearHead(),
    resolution=224,
)

_DEPTHS = (3, 4, 6, 3)
ARCHS = {
    "resnet50d": SPACE.arch(
        [Candidate(stage.widths[-1], ((0.25,),) * depth) for stage, depth in zip(SPACE.stages, _DEPTHS, strict=True)]
    )
}
