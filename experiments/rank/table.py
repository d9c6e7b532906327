"""Prints a ranking as the markdown table of the README: python experiments/rank/table.py RUN/rank"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import pandas as pd

ROLES = {"primary": "primary", "primary control": "primary control", "control": "control", "exploratory": ""}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="holds summary.csv and noise.csv")
    folder = parser.parse_args().folder
    summary, noise = pd.read_csv(folder / "summary.csv"), pd.read_csv(folder / "noise.csv")
    print(f"{summary['archs'].max()} archs; with more than one seed inside the bands: {noise['archs'].max()}\n")
    print("| score | | tau inside bands | tau over all sizes | partial tau | gap to best size | p (Holm) | CPU min |")
    print("|---|---|---|---|---|---|---|---|")
    for row in summary.to_dict("records"):
        gap, p = "", ""
        if row["minus_size"] == row["minus_size"] and row["kind"] == "score":
            gap = _span(row, "minus_size", "+.2f")
            p = f"{row['minus_size_p_holm']:.3f}"
        partial = "" if math.isnan(row["partial_tau"]) else f"{row['partial_tau']:.2f}"
        minutes = row["cpu_minutes"] + row["preparation_minutes"]
        print(
            f"| {row['score']} | {ROLES[row['role']]} | {_span(row, 'band_tau')} | {_span(row, 'tau')} |"
            f" {partial} | {gap} | {p} | {minutes:.1f} |"
        )


def _span(row: dict[str, float], name: str, how: str = ".2f") -> str:
    return f"{row[name]:{how}} [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]"


if __name__ == "__main__":
    main()
