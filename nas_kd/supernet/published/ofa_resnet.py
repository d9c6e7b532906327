"""OFA's ResNet-50-D (OFAResNets).

Source: Once-for-All (Cai et al. 2020), the names in its released code (MIT).
"""

from __future__ import annotations

from collections.abc import Collection

from nas_kd.supernet.published.layout import Layout

ENDS = {
    "stem.conv1": "input_stem.0.conv.conv",
    "stem.bn1": "input_stem.0.bn.bn",
    "stem.conv2": "input_stem.1.conv.conv.conv",  # the residual one
    "stem.bn2": "input_stem.1.conv.bn.bn",
    "stem.conv3": "input_stem.2.conv.conv",
    "stem.bn3": "input_stem.2.bn.bn",
    "head.fc": "classifier.linear.linear",
}
BLOCK = {
    "conv1": "conv1.conv.conv",
    "bn1": "conv1.bn.bn",
    "conv2": "conv2.conv.conv",
    "bn2": "conv2.bn.bn",
    "conv3": "conv3.conv.conv",
    "bn3": "conv3.bn.bn",
    "shortcut": "downsample.conv.conv",
    "shortcut_bn": "downsample.bn.bn",
}


def layout(file: Collection[str]) -> Layout | None:
    """Return the names of OFA's ResNet if these are its tensors."""
    if "input_stem.0.conv.conv.weight" not in file:
        return None
    return Layout(source="OFA", ends=ENDS, block="blocks.{}.", layers=BLOCK)
