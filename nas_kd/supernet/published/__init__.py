"""The names of tensors in published supernets, one file a family."""

from __future__ import annotations

from collections.abc import Collection

from nas_kd.supernet.published import attentive_nas, ofa, ofa_resnet
from nas_kd.supernet.published.layout import RUNNING, Layout

__all__ = ["RUNNING", "Layout", "published_layout"]


def published_layout(file: Collection[str]) -> Layout | None:
    """Return how the published supernet of these tensors names them, or None if they are of no published one."""
    found = (family.layout(file) for family in (ofa, ofa_resnet, attentive_nas))
    return next((layout for layout in found if layout is not None), None)
