"""Vision transformers, AutoFormer-T's choices: 3 x (4^12 + 4^13 + 4^14) = 1.1e9 archs of 1.0 to 2.0 GMACs at 224 px.

Source: AutoFormer (Chen et al. 2021), table 1, supernet-tiny: width 192, 216 or 240 throughout, 12 to 14 layers,
each with 3 or 4 heads of 64 channels and an MLP of 3.5 or 4 times the width. Unlike there, the classifier reads the
mean of all tokens instead of a class token, and positions are learned and absolute. The layers are cut in four
stages for blockwise supervision; depth varies in the last one, so the archs are AutoFormer's.
"""

from nas_kd.blocks import NormHead, PatchStem, ViTStage
from nas_kd.space import ElasticSpace

WIDTHS = (192, 216, 240)


def space(name: str = "vit", resolution: int = 224, patch: int = 16) -> ElasticSpace:
    """Return the space for one image and patch size.

    Args:
        name: name of the space.
        resolution: usual height and width of the input in pixels, a multiple of ``patch``.
        patch: height and width of a patch in pixels.
    """

    def stage(*depths: int) -> ViTStage:
        return ViTStage(widths=WIDTHS, depths=depths, heads=(3, 4), mlp_ratios=(3.5, 4), head_dim=64)

    return ElasticSpace(
        name=name,
        stem=PatchStem(width=WIDTHS, patch=patch, grid=resolution // patch),
        stages=(stage(3), stage(3), stage(3), stage(3, 4, 5)),
        head=NormHead(),
        resolution=resolution,
    )


SPACE = space()
