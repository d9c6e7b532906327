"""Scores of architectures and of candidates of their stages."""

from nas_kd.rate.blockwise import rate_blockwise
from nas_kd.rate.rows import arch_of_rows, full_rows, rows_of
from nas_kd.rate.subnet import SubnetScorer

__all__ = ["SubnetScorer", "arch_of_rows", "full_rows", "rate_blockwise", "rows_of"]
