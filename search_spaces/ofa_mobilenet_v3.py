"""OFA's MobileNetV3, width 1.0: 7371^5 = 2.2e19 archs of 121 to 566 MMACs at 224 px, 41 at 128 px.

Source: Once-for-All (Cai et al. 2020), section 4 and released code. OFA also draws the input size from 128,
132, ..., 224 px; its number of networks leaves that out, and so does this space: pass ``resolution``.
"""

from nas_kd.blocks import ConvStem, MBStage, MobileHead
from nas_kd.space import Arch, Candidate, ElasticSpace, make_divisible


def space(name: str, width_mult: float) -> ElasticSpace:
    """Return the space at one width.

    Args:
        name: name of the space.
        width_mult: what all channels are multiplied by, before rounding to multiples of 8.
    """

    def wide(channels: int) -> int:
        return make_divisible(channels * width_mult)

    def stage(width: int, stride: int, act: str, se: bool) -> MBStage:
        return MBStage(widths=(wide(width),), depths=(2, 3, 4), ses=(se,), stride=stride, act=act)

    return ElasticSpace(
        name=name,
        stem=ConvStem(width=wide(16), stride=2, act="hardswish"),
        stages=(
            MBStage(widths=(wide(16),), depths=(1,), kernels=(3,), expands=(1,), ses=(False,), act="relu"),  # fixed
            stage(24, 2, "relu", se=False),
            stage(40, 2, "relu", se=True),
            stage(80, 2, "hardswish", se=False),
            stage(112, 1, "hardswish", se=True),
            stage(160, 2, "hardswish", se=True),
        ),
        head=MobileHead(features=wide(1280), channels=wide(960), act="hardswish"),
        resolution=224,
    )


def read(space: ElasticSpace, depths: str, kernels: str, expands: str) -> Arch:
    """Read an arch as OFA writes it.

    Args:
        space: the space.
        depths: layers of the five elastic stages, one digit a stage.
        kernels: kernel sizes of all layers, one digit a layer, four a stage, of which the first ``depth`` count.
        expands: expand ratios, likewise.
    """
    stages = [space.stages[0].largest()]
    for stage, depth, ks, es in zip(space.stages[1:], depths, kernels.split(), expands.split(), strict=True):
        se = stage.largest().layers[0][2]  # not a choice
        layers = tuple((int(k), int(e), se) for k, e in zip(ks, es, strict=True))
        stages.append(Candidate(stage.widths[0], layers[: int(depth)]))
    return space.arch(stages)


SPACE = space("ofa_mobilenet_v3", 1.0)

ARCHS = {  # the published network for a Samsung Note8 at 22 ms, meant for 140 px
    "note8_22ms": read(SPACE, "22222", "3333 5533 7333 5333 3733", "3333 3333 4333 3433 6636")
}
