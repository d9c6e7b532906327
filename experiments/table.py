"""Prints a finished run as the markdown tables of the README.

Hardware: any machine. Seeds: nothing is drawn. Command: python experiments/table.py runs/digits
Result: the tables under "Students" in README.md.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from stand_in import HELP, QUICK

from nas_kd.analyse import final_table, trust_table

KEPT = Path(__file__).parent / "results" / "cifar10"  # the tables of a run that are committed


def committed(run: Path) -> Path:
    """Lay the committed tables of the CIFAR-10 run out as a run."""
    for folder, name in (("retrain", "results"), ("search", "students"), ("search", "top")):
        (run / folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(KEPT / f"{name}.csv", run / folder)
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", help="run folder")
    parser.add_argument("--quick", action="store_true", help=HELP)
    options = parser.parse_args()
    if options.run is None and not options.quick:
        parser.error("give a run folder")
    run = options.run or committed(QUICK / "table")
    print("| | MACs | params | accuracy % (mean ± sd) | lowest to highest | agreement % | seeds |")
    print("|---|---|---|---|---|---|---|")
    for row in final_table(run).to_dict("records"):
        several = row["seeds"] > 1
        spread = f" ± {row['accuracy_sd_percent']:.2f}" if several else ""
        ends = f"{row['accuracy_min_percent']:.2f} to {row['accuracy_max_percent']:.2f}" if several else ""
        print(
            f"| {row['role'].replace('_', ' ')} | {row['macs']:,} | {row['params']:,} |"
            f" {row['accuracy_mean_percent']:.2f}{spread} | {ends} | {row['agreement_mean_percent']:.2f} |"
            f" {row['seeds']} |"
        )
    print("\n| score | ranks | archs | Kendall tau-b [95 % interval] |")
    print("|---|---|---|---|")
    for row in trust_table(run).dropna(subset=["tau"]).to_dict("records"):
        ranks = f"{row['truth']}, {row['among']}"
        print(f"| {row['score']} | {ranks} | {row['archs']} | {row['tau']:.2f} [{row['low']:.2f}, {row['high']:.2f}] |")


if __name__ == "__main__":
    main()
