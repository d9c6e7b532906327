"""The final table: within the terminal, what matters most stays, no number changes with the width."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from nas_kd.analyse.table import Columns
from nas_kd.config.measures import ACCURACY
from nas_kd.pipeline.results_table import results_table, short_count

NAMES = Columns()


def frame(name: str = "resnet56") -> pd.DataFrame:
    def row(role: str, arch: str, macs: int, mean: float, **more: object) -> dict[str, object]:
        known = {"role": role, "arch": arch, "macs": macs, "params": macs // 100, NAMES.mean: mean, NAMES.sd: 0.21}
        rest = {"agreement_mean_percent": 91.5, "seeds": 3, "folder": f"retrain/{arch}/seed_0/student", "collapsed": 0}
        return known | rest | {"handed_over": False, NAMES.low: -2.0, NAMES.high: -1.0} | more

    rows = [
        row("teacher", name, 126_000_000, 92.51, seeds=1, folder=None, agreement_mean_percent=math.nan),
        row("found", "6433b447c75c", 41_512_345, 85.42, handed_over=True, **{NAMES.low: math.nan}),
        row("largest_params", "20e69124d723", 41_600_000, 85.15, **{NAMES.high: 0.4}),
        row("even_both_repaired", "66a8fd258b74", 40_999_999, 10.0, collapsed=2),
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize("width", [60, 80, 90, 200])
def test_the_table_fits_and_keeps_role_measure_and_marks(width: int) -> None:
    drawn = results_table(frame(), ACCURACY, width)
    table = [line for line in drawn if line[0] in "┌│├└"]
    assert len({len(line) for line in table}) == 1 and len(table[0]) <= width
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in table if line[0] == "│"]
    head, *rows = cells
    at = head.index("accuracy %")
    assert [row[0] for row in rows] == ["teacher", "found", "largest_params", "even_both_repaired"]
    assert [row[at] for row in rows] == ["92.51", "85.42 ± 0.21", "85.15 ± 0.21", "10.00 ± 0.21"]
    assert [row[at + 1] for row in rows] == ["", "<", "=", "!"]
    wanted = {60: ["MACs"], 80: ["arch", "MACs", "params"], 90: ["arch", "MACs", "params", "agreement %"]}
    shown = wanted.get(width, ["arch", "MACs", "params", "agreement %", "seeds"])
    assert [name for name in head if name not in ("", "accuracy %")] == shown


def test_paths_stand_below_whole() -> None:
    drawn = results_table(frame("tf_efficientnetv2_b0.in21k_ft_in1k"), ACCURACY, 80)
    assert drawn[-3:] == [
        "  found               retrain/6433b447c75c/seed_0/student",
        "  largest_params      retrain/20e69124d723/seed_0/student",
        "  even_both_repaired  retrain/66a8fd258b74/seed_0/student",
    ]
    assert max(map(len, drawn)) <= 80 and "arch" not in drawn[1]  # a long name leaves, and is not cut


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999, "999"), (1000, "1.000k"), (207_168, "207.2k"), (4_089_184_256, "4.089G"), (None, "-")],
)
def test_counts_are_short(count: int | None, text: str) -> None:
    assert short_count(count) == text
