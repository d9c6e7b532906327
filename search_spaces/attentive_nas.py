"""The space of AttentiveNAS and AlphaNet: 4.4e11 archs of 203 to 1939 MMACs on ImageNet.

Source: AttentiveNAS (Wang et al. 2021), table 8; AlphaNet (Wang et al. 2021) trains the same space.
"""

from nas_kd.space import ConvStem, ElasticSpace, MBStage, MobileHead


def _stage(
    widths: tuple[int, ...], depths: tuple[int, ...], expands: tuple[int, ...], se: bool, stride: int
) -> MBStage:
    return MBStage(
        widths=widths, depths=depths, kernels=(3, 5), expands=expands, ses=(se,), stride=stride,
        act="silu", uniform=True, pooled=True,
    )  # fmt: skip


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
