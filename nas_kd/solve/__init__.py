"""Exact solvers on tables: fronts of additive scores, k best, integer programming; no torch."""

from nas_kd.solve.front import exact_front, pruned
from nas_kd.solve.kbest import k_best
from nas_kd.solve.milp import best, feasible_range

__all__ = ["best", "exact_front", "feasible_range", "k_best", "pruned"]
