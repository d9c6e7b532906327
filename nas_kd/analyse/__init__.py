"""Results of a run and how far its ranking can be trusted: pandas frames, figures, report; no torch."""

from nas_kd.analyse.correlation import Tau, in_band, kendall, kendall_difference
from nas_kd.analyse.frames import front, metrics, results, searches, trials
from nas_kd.analyse.report import report
from nas_kd.analyse.table import final_table, student_table
from nas_kd.analyse.trust import trust_table
from nas_kd.solve.pareto import pareto

__all__ = [
    "Tau",
    "final_table",
    "front",
    "in_band",
    "kendall",
    "kendall_difference",
    "metrics",
    "pareto",
    "report",
    "results",
    "searches",
    "student_table",
    "trials",
    "trust_table",
]
