"""Prints a ranking as the markdown table of the README.

Hardware: any machine. Seeds: nothing is drawn. Command: python experiments/rank/table.py RUN/rank [RUN_2/rank]
Result: the table of scores in experiments/README.md, from the tables of this folder and of vgg/.

With a second ranking of the same archs, by another teacher, its taus and gaps stand beside those of the first.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import pandas as pd

HERE = Path(__file__).parent
ROLES = {"primary": "primary", "primary control": "primary control", "control": "control", "exploratory": ""}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="*", help="hold summary.csv and noise.csv")
    parser.add_argument("--quick", action="store_true", help="print the committed tables")
    options = parser.parse_args()
    if not options.folders and not options.quick:
        parser.error("give the folder of one ranking, or of two")
    first, *others = options.folders or [HERE, HERE / "vgg"]
    for folder in (first, *others):
        archs = pd.read_csv(folder / "summary.csv")["archs"].max()
        print(f"{folder}: {archs} archs; with more than one seed: {pd.read_csv(folder / 'noise.csv')['archs'].max()}")
    seconds = [pd.read_csv(folder / "summary.csv").set_index("score") for folder in others]
    more = "".join(" tau inside bands | gap | p (Holm) |" for _ in others)
    columns = "score | | tau inside bands | tau over all sizes | partial tau | gap to best size | p (Holm) | CPU min"
    print(f"\n| {columns} |{more}")
    print("|---|---|---|---|---|---|---|---|" + "---|---|---|" * len(others))
    for row in pd.read_csv(first / "summary.csv").to_dict("records"):
        partial = "" if math.isnan(row["partial_tau"]) else f"{row['partial_tau']:.2f}"
        minutes = row["cpu_minutes"] + row["preparation_minutes"]
        cells = [
            row["score"],
            ROLES[row["role"]],
            _span(row, "band_tau"),
            _span(row, "tau"),
            partial,
            *_gap(row),
            f"{minutes:.1f}",
        ]
        for second in seconds:
            if row["score"] not in second.index:
                cells += ["", "", ""]
                continue
            other = second.loc[row["score"]].to_dict()
            named = f" ({ROLES[other['role']]})" if other["role"] != row["role"] and ROLES[other["role"]] else ""
            cells += [_span(other, "band_tau") + named, *_gap(other)]
        print(f"| {' | '.join(cells)} |")


def _gap(row: dict[str, Any]) -> tuple[str, str]:
    if row["minus_size"] != row["minus_size"] or row["kind"] != "score":
        return "", ""
    return _span(row, "minus_size", "+.2f"), f"{row['minus_size_p_holm']:.3f}"


def _span(row: dict[str, Any], name: str, how: str = ".2f") -> str:
    return f"{row[name]:{how}} [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]"


if __name__ == "__main__":
    main()
