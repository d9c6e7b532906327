"""Scores of architectures and of candidates of their stages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas_kd.lazy import lazy

if TYPE_CHECKING:
    from nas_kd.rate.blockwise import rate_blockwise as rate_blockwise
    from nas_kd.rate.subnet import SubnetScorer as SubnetScorer

_HOME = {
    "SubnetScorer": "subnet",
    "rate_blockwise": "blockwise",
}
__all__ = [*_HOME]
__getattr__, __dir__ = lazy(__name__, _HOME)
