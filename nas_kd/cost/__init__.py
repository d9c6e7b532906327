"""Measured costs; closed-form costs are part of the space."""

from nas_kd.cost.latency import Latency, measure_latency

__all__ = ["Latency", "measure_latency"]
