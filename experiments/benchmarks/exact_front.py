"""Claim: the whole exact front of 6 stages x 10,000 candidates takes under 0.1 s, less than one milp solve.

Hardware: 2 cores of an AMD EPYC (busy), one thread, one process; medians of 5 calls over 5 table draws.
Seeds: table draws 0 .. 4. Command: OMP_NUM_THREADS=1 python experiments/benchmarks/exact_front.py
Numbers: uncoupled 12 ms against 50 ms for one milp budget on pruned rows (ratio 4.1); 3 widths 24 ms against
348 ms (ratio 14.0); 6 x 1,000 unpruned 15 ms against 144 ms (ratio 9.8); with a second cap 0.8 s.
"""

from __future__ import annotations

import argparse
from statistics import median
from time import perf_counter

import numpy as np
import pandas as pd
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

import nas_kd.solve as solve


def make_tables(stages: int, rows: int, widths: int, seed: int) -> list[pd.DataFrame]:
    """Draw tables in which dearer candidates tend to score better, as rated stages do."""
    rng = np.random.default_rng(seed)
    tables = []
    for _ in range(stages):
        macs = rng.integers(50_000, 2_000_000, rows)
        params = (macs * rng.uniform(0.01, 0.1, rows)).astype(np.int64)
        score = 0.3 * (macs / 1e6) ** -0.5 * rng.lognormal(0.0, 0.3, rows)
        table = pd.DataFrame({"score": score, "macs": macs, "params": params})
        if widths > 1:
            table["in_width"], table["out_width"] = rng.integers(0, widths, (2, rows)) * 8 + 16
        tables.append(table)
    return tables


def seconds(function, *args, repeats: int = 5, **keywords) -> tuple[float, object]:
    """Return the median time of some calls and the last result."""
    times = []
    for _ in range(repeats):
        began = perf_counter()
        result = function(*args, **keywords)
        times.append(perf_counter() - began)
    return median(times), result


def unpruned(tables: list[pd.DataFrame], cap: int) -> float:
    """Solve one budget over all rows, as a user of scipy would write it at first: one 0 or 1 a row."""
    rows = pd.concat(tables, keys=range(len(tables)), names=["stage"])
    stage = rows.index.get_level_values("stage").to_numpy()
    one_each = csr_array((np.ones(len(rows)), (stage, np.arange(len(rows)))))
    macs = rows["macs"].to_numpy(float)[None] / cap
    found = milp(
        rows["score"].to_numpy(),
        constraints=[LinearConstraint(one_each, 1, 1), LinearConstraint(macs, -np.inf, 1)],
        integrality=np.ones(len(rows)),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0.0},
    )
    return float(found.fun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="small tables, to see that it runs; the times mean nothing"
    )
    quick = parser.parse_args().quick
    many, few, draws = (200, 50, 1) if quick else (10_000, 1_000, 5)
    for widths in (1, 3):
        fronts = []
        solved = []
        ratios = []
        size = 0
        for seed in range(draws):
            tables = make_tables(6, many, widths, seed)
            front_s, front = seconds(solve.exact_front, tables)
            middle = front.iloc[len(front) // 2]
            milp_s, one = seconds(solve.best, tables, bounds={"macs": int(middle["macs"])}, repeats=3)
            assert abs(one["score"] - middle["score"]) < 1e-9
            fronts.append(front_s)
            solved.append(milp_s)
            ratios.append(milp_s / front_s)
            size = len(front)
        print(
            f"6 x {many:,}, {widths} width(s): whole front ({size} archs) {median(fronts) * 1e3:.1f} ms; "
            f"milp on pruned rows, one budget {median(solved) * 1e3:.1f} ms; ratio {median(ratios):.1f}"
        )
    tables = make_tables(6, few, 1, 0)
    front_s, front = seconds(solve.exact_front, tables)
    middle = front.iloc[len(front) // 2]
    milp_s, score = seconds(unpruned, tables, int(middle["macs"]), repeats=1)
    assert abs(score - middle["score"]) < 1e-9
    print(
        f"6 x {few:,}, unpruned milp: front {front_s * 1e3:.1f} ms; one budget {milp_s * 1e3:.1f} ms; "
        f"ratio {milp_s / front_s:.1f}"
    )
    tables = make_tables(6, many, 3, 0)
    cap = int(solve.exact_front(tables)["params"].median())
    capped_s, front = seconds(solve.exact_front, tables, bounds={"params": cap}, repeats=3)
    print(f"6 x {many:,}, 3 widths, params capped: front ({len(front)} archs) {capped_s * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
