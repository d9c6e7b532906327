"""The registry of shipped blocks: the class that builds each ``op`` of an arch.json."""

from __future__ import annotations

from collections.abc import Iterable

from nas_kd.blocks.basic import BasicStage
from nas_kd.blocks.bottleneck import BottleneckStage
from nas_kd.blocks.conv_stem import ConvStem
from nas_kd.blocks.linear_head import LinearHead
from nas_kd.blocks.mbconv import MBStage
from nas_kd.blocks.mobile_head import MobileHead
from nas_kd.blocks.norm_head import NormHead
from nas_kd.blocks.patch_stem import PatchStem
from nas_kd.blocks.resnetd_stem import ResNetDStem
from nas_kd.blocks.vit import ViTStage
from nas_kd.errors import SettingError
from nas_kd.nn.static import Kind

SHIPPED: dict[str, Kind] = {
    "basic": BasicStage,
    "bottleneck": BottleneckStage,
    "head": LinearHead,
    "mbconv": MBStage,
    "mobile_head": MobileHead,
    "norm_head": NormHead,
    "patch": PatchStem,
    "resnet_stem": ResNetDStem,
    "stem": ConvStem,
    "vit": ViTStage,
}


def kinds(own: Iterable[Kind] = ()) -> dict[str, Kind]:
    """Return the classes that build and count layers, by ``op``.

    Args:
        own: classes of stems, blocks and heads besides the shipped ones.

    Raises:
        SettingError: one of them uses the ``op`` of a shipped class and builds other layers.
    """
    added = {part.op: part for part in own}
    for op, part in added.items():
        if op in SHIPPED and SHIPPED[op].static is not part.static:
            expected = f"an op other than {', '.join(SHIPPED)}, which build other layers in a student folder"
            raise SettingError("op", op, expected, "choose another op for the block")
    return SHIPPED | added
