"""OFA's MobileNetV3 and ProxylessNAS (OFAMobileNetV3, OFAProxylessNASNets).

Source: Once-for-All (Cai et al. 2020), the names in its released code (MIT).
"""

from __future__ import annotations

from collections.abc import Collection

from nas_kd.supernet.published.layout import MOBILE, Layout

STEM = {"stem.conv": "first_conv.conv", "stem.bn": "first_conv.bn"}
CLASSIFIER = {"head.fc": "classifier.linear"}
MOBILE_HEAD = {  # MobileNetV3's, with a norm before the pooling only
    "head.conv": "final_expand_layer.conv",
    "head.bn": "final_expand_layer.bn",
    "head.mix": "feature_mix_layer.conv",
}
PLAIN_HEAD = {"head.conv": "feature_mix_layer.conv", "head.bn": "feature_mix_layer.bn"}
FIRST = {  # the first block is not elastic: its layers are plain ones
    "depthwise": "depth_conv.conv",
    "depthwise_bn": "depth_conv.bn",
    "project": "point_linear.conv",
    "project_bn": "point_linear.bn",
}
MATRICES = {f"depthwise.transform.matrices.{sizes}": f"depth_conv.conv.{sizes}_matrix" for sizes in ("7to5", "5to3")}


def layout(file: Collection[str]) -> Layout | None:
    """Return OFA's names if these are its tensors; older files name the inside of a block otherwise."""
    if "first_conv.conv.weight" not in file:
        return None
    older = any(".mobile_inverted_conv." in name for name in file)
    head = MOBILE_HEAD if "final_expand_layer.conv.weight" in file else PLAIN_HEAD
    return Layout(
        source="OFA",
        ends=STEM | head | CLASSIFIER,
        block="blocks.{}.mobile_inverted_conv." if older else "blocks.{}.conv.",
        layers=MOBILE | MATRICES,
        first=FIRST,
    )
