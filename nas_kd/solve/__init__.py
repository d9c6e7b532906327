"""Search engines: exact fronts of additive scores, integer programming, and Optuna for whole subnets."""

from nas_kd.solve.front import exact_front, pruned
from nas_kd.solve.kbest import k_best
from nas_kd.solve.milp import best, feasible_range
from nas_kd.solve.optuna_engine import refine

__all__ = ["best", "exact_front", "feasible_range", "k_best", "pruned", "refine"]
