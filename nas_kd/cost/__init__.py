"""Costs that are measured on the machine; the closed forms live with the space."""

from nas_kd.cost.latency import Latency, measure_latency

__all__ = ["Latency", "measure_latency"]
