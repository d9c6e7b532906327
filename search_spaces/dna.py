"""A space like DNA's, six operations a layer: 36 x 1296^4 x 6 = 6.1e14 archs of 248 to 556 MMACs.

Source: DNA (Li et al. 2020), section 4 and the supernet of its released code: kernel 3, 5 or 7 and expand ratio 3
or 6, always with squeeze-excite, in stages of 2, 4, 4, 4, 4 and 1 layers at the widths of EfficientNet-B0. Depths
and widths are fixed: a stage of 4 layers has 1,296 paths, and 1,554 layers in their prefix tree. Unlike there,
squeeze-excite has a quarter of the expanded width (as in MobileNetV3), and every stage has its own width
throughout: adapters bring it to the teacher's.
"""

from nas_kd.blocks import ConvStem, LinearHead, MBStage
from nas_kd.space import ElasticSpace


def _stage(width: int, depth: int, stride: int) -> MBStage:
    return MBStage(
        widths=(width,), depths=(depth,), kernels=(3, 5, 7), expands=(3, 6), ses=(True,), stride=stride, act="silu"
    )


SPACE = ElasticSpace(
    name="dna",
    stem=ConvStem(width=32, stride=2, act="silu"),
    stages=(
        MBStage(widths=(16,), depths=(1,), kernels=(3,), expands=(1,), ses=(True,), act="silu"),  # fixed
        _stage(24, 2, stride=2),
        _stage(40, 4, stride=2),
        _stage(80, 4, stride=2),
        _stage(112, 4, stride=1),
        _stage(192, 4, stride=2),
        _stage(320, 1, stride=1),
    ),
    head=LinearHead(features=1280, act="silu"),
    resolution=224,
)
