"""Scores of architectures and of candidates of their stages."""

from nas_kd.rate.blockwise import rate_blockwise
from nas_kd.rate.subnet import SubnetScorer

__all__ = ["SubnetScorer", "rate_blockwise"]
