"""The space of AttentiveNAS and AlphaNet: 4.4e11 archs of 203 to 1939 MMACs on ImageNet.

Source: AttentiveNAS (Wang et al. 2021), table 8; AlphaNet (Wang et al. 2021) trains the same space. Their code
keeps a 1x1 convolution for every shortcut, also where the shortcut is the identity and no network uses it. Those
are not here, so parameters are fewer by width^2 for each such layer; MACs and outputs are the same.
"""

from collections.abc import Sequence

from nas_kd.blocks import ConvStem, MBStage, MobileHead
from nas_kd.space import Arch, Candidate, ElasticSpace


def _stage(
    widths: tuple[int, ...], depths: tuple[int, ...], expands: tuple[int, ...], se: bool, stride: int
) -> MBStage:
    return MBStage(
        widths=widths,
        depths=depths,
        kernels=(3, 5),
        expands=expands,
        ses=(se,),
        stride=stride,
        act="silu",
        uniform=True,
        pooled=True,
    )


SPACE = ElasticSpace(
    name="attentive_nas",
    stem=ConvStem(width=(16, 24), stride=2, act="silu"),
    stages=(
        _stage((16, 24), (1, 2), (1,), se=False, stride=1),
        _stage((24, 32), (3, 4, 5), (4, 5, 6), se=False, stride=2),
        _stage((32, 40), (3, 4, 5, 6), (4, 5, 6), se=True, stride=2),
        _stage((64, 72), (3, 4, 5, 6), (4, 5, 6), se=False, stride=2),
        _stage((112, 120, 128), (3, 4, 5, 6, 7, 8), (4, 5, 6), se=True, stride=1),
        _stage((192, 200, 208, 216), (3, 4, 5, 6, 7, 8), (6,), se=True, stride=2),
        _stage((216, 224), (1, 2), (6,), se=True, stride=1),
    ),
    head=MobileHead(features=(1792, 1984), expand=6, act="silu"),
    resolution=224,
    resolutions=(192, 224, 256, 288),
)


def read(resolution: int, widths: Sequence[int], kernels: str, expands: str, depths: str) -> Arch:
    """Read an arch as AttentiveNAS writes it.

    Args:
        resolution: input height and width in pixels.
        widths: channels of the stem, the seven stages and the head.
        kernels: kernel size of each stage, one digit a stage.
        expands: expand ratio of each stage, likewise.
        depths: layers of each stage, likewise.
    """
    stem, *inner, head = widths
    ses = (stage.largest().layers[0][2] for stage in SPACE.stages)  # not a choice
    settings = zip(inner, kernels, expands, ses, depths, strict=True)
    stages = [Candidate(width, ((int(k), int(e), se),) * int(depth)) for width, k, e, se, depth in settings]
    return SPACE.arch(stages, stem=(stem,), head=(head,), resolution=resolution)


ARCHS = {  # a5 is AttentiveNAS's, a5_small and a5_base are AlphaNet's, the others are both's
    "a0": read(192, (16, 16, 24, 32, 64, 112, 192, 216, 1792), "3333333", "1444466", "1333331"),
    "a1": read(224, (16, 16, 24, 32, 64, 112, 192, 216, 1984), "3335353", "1444466", "1333331"),
    "a2": read(224, (16, 16, 24, 32, 64, 112, 200, 224, 1984), "3333353", "1454466", "1333341"),
    "a3": read(224, (16, 16, 24, 32, 64, 112, 208, 224, 1984), "3335333", "1444466", "2334351"),
    "a4": read(256, (16, 16, 24, 32, 64, 112, 192, 216, 1984), "3335353", "1445466", "1334351"),
    "a5": read(256, (16, 16, 24, 32, 72, 112, 192, 216, 1792), "3335333", "1454466", "1333461"),
    "a5_small": read(256, (16, 16, 24, 32, 64, 112, 208, 216, 1984), "3333353", "1445466", "1334451"),
    "a5_base": read(288, (16, 16, 24, 32, 64, 112, 200, 216, 1984), "3355333", "1444566", "2343351"),
    "a6": read(288, (16, 16, 24, 32, 64, 112, 216, 224, 1984), "3333353", "1465466", "1334461"),
}
