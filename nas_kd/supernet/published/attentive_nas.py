"""AttentiveNAS and AlphaNet, which share their code for networks (AttentiveNasDynamicModel).

Source: AttentiveNAS (Wang et al. 2021) and AlphaNet (Wang et al. 2021), the names of the released tensors.
"""

from __future__ import annotations

from collections.abc import Collection

from nas_kd.supernet.published.layout import MOBILE, RUNNING, Layout

ENDS = {
    "stem.conv": "first_conv.conv.conv",
    "stem.bn": "first_conv.bn.bn",
    "head.conv": "last_conv.final_expand_layer.conv.conv",
    "head.bn": "last_conv.final_expand_layer.bn.bn",
    "head.mix": "last_conv.feature_mix_layer.conv.conv",
    "head.fc": "classifier.linear.linear",
}
SHORTCUT = "shortcut.conv.conv"


def layout(file: Collection[str]) -> Layout | None:
    """Return the names of AttentiveNAS if these are its tensors, or AlphaNet's.

    Every block has a 1x1 convolution for its shortcut; where the shortcut is always the identity no network uses it.
    """
    if "first_conv.conv.conv.weight" not in file:
        return None
    inner = {own: f"mobile_inverted_conv.{theirs}" for own, theirs in MOBILE.items()}
    return Layout(
        source="AttentiveNAS",
        ends=ENDS,
        block="blocks.{}.",
        layers=inner | {"shortcut": SHORTCUT},
        unused=(*RUNNING, f"{SHORTCUT}.weight"),
    )
