"""OFA's ProxylessNAS, width 1.3: 7371^5 x 9 = 2.0e20 archs of 266 to 1005 MMACs at 224 px.

Source: Once-for-All (Cai et al. 2020) and released code; the stages are those of ProxylessNAS (Cai et al. 2019).
As in OFA, norms add 1e-3 to the variance here.
"""

from nas_kd.blocks import ConvStem, LinearHead, MBStage
from nas_kd.space import ElasticSpace, make_divisible

EPS = 1e-3  # what norms add to the variance


def wide(channels: int) -> int:
    """Return channels at width 1.3, a multiple of 8."""
    return make_divisible(channels * 1.3)


def _stage(width: int, stride: int, depths: tuple[int, ...] = (2, 3, 4)) -> MBStage:
    return MBStage(widths=(wide(width),), depths=depths, ses=(False,), stride=stride, act="relu6", eps=EPS)


SPACE = ElasticSpace(
    name="ofa_proxyless",
    stem=ConvStem(width=wide(32), stride=2, act="relu6", eps=EPS),
    stages=(
        MBStage(
            widths=(wide(16),), depths=(1,), kernels=(3,), expands=(1,), ses=(False,), act="relu6", eps=EPS
        ),  # fixed
        _stage(24, 2),
        _stage(40, 2),
        _stage(80, 2),
        _stage(96, 1),
        _stage(192, 2),
        _stage(320, 1, depths=(1,)),
    ),
    head=LinearHead(features=wide(1280), act="relu6", eps=EPS),
    resolution=224,
)
