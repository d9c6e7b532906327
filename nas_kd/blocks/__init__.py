"""Stems, blocks and heads, one per file: choices, costs, shared weights, static twin, sortable channels, label."""

from nas_kd.blocks.basic import BasicStage
from nas_kd.blocks.bottleneck import BottleneckStage
from nas_kd.blocks.conv_stem import ConvStem
from nas_kd.blocks.kinds import kinds
from nas_kd.blocks.linear_head import LinearHead
from nas_kd.blocks.mbconv import MBStage
from nas_kd.blocks.mobile_head import MobileHead
from nas_kd.blocks.norm_head import NormHead
from nas_kd.blocks.patch_stem import PatchStem
from nas_kd.blocks.resnetd_stem import ResNetDStem
from nas_kd.blocks.vit import ViTStage

__all__ = [
    "BasicStage",
    "BottleneckStage",
    "ConvStem",
    "LinearHead",
    "MBStage",
    "MobileHead",
    "NormHead",
    "PatchStem",
    "ResNetDStem",
    "ViTStage",
    "kinds",
]
