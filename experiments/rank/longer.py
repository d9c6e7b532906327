"""Does the order of archs hold at a longer schedule? One ranking's archs, trained longer.

    python experiments/rank/longer.py RUN LONG [--scores "tuned subnet" "supernet KL"] [--out longer.csv]
reads archs.csv, truth.csv and scores.csv of a ranking and truth.csv of another, whose trainings of some of the same
archs were longer (in RUN/rank, or in RUN itself), and writes for each seed of the short trainings, their mean and each
score its tau with the short trainings (the mean of their seeds) and with the long ones, inside the bands of one size,
with 95 % intervals over archs.

Hardware: any machine; the trainings: one thread of an AMD EPYC. Seeds: 0 and 1 short, 0 long, of 20 archs.
Result: longer.csv; 24 epochs agree with 12 by a tau of 0.70, the tuned subnet ranks the longer ones with 0.62.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from nas_kd.analyse.bootstrap import interval_of, resampled_taus
from nas_kd.analyse.tau import pairs_within, tau_b

HERE = Path(__file__).parent
SCORES = (
    "tuned subnet",
    "supernet KL",
    "regression on KL, MSE and size",
    "assembled KL",
    "short training",
    "minus depth",
    "sum of log widths",
    "MACs",
    "parameters",
)


def compared(archs: pd.DataFrame, short: pd.DataFrame, long: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Compare short trainings and scores with long trainings of the same archs.

    Args:
        archs: key and group of the archs that were trained long; the bands count, and in them archs with all seeds.
        short: key, seed and accuracy.
        long: key, seed and accuracy.
        scores: key, score, value and better.

    Returns:
        One row a seed, their mean and a score: what, archs, tau with the short trainings, tau with the long ones,
        each with low and high; a seed is not compared with a mean that it is part of.
    """
    tables = {
        name: rows.pivot_table(index="key", columns="seed", values="accuracy")
        for name, rows in (("short", short), ("long", long))
    }
    known = [set(table.dropna().index) for table in tables.values()]
    archs = archs[archs["group"].str.startswith("band ") & archs["key"].isin(set.intersection(*known))]
    wide = {name: table.reindex(archs["key"]) for name, table in tables.items()}
    seeds = wide["short"].columns
    found = {f"short training's accuracy, seed {seed}": wide["short"][seed].to_numpy() for seed in seeds}
    found["short training's accuracy, all seeds"] = wide["short"].mean(axis=1).to_numpy()
    own = len(found)
    for name in dict.fromkeys(scores["score"]):
        rows = scores[scores["score"] == name].set_index("key").reindex(archs["key"])
        sign = 1.0 if (rows["better"] == "higher").all() else -1.0
        found[name] = sign * rows["value"].to_numpy(dtype=float)
    pairs = pairs_within(archs["group"].tolist())
    table = pd.DataFrame({"what": list(found), "archs": len(archs)})
    for name, truth in wide.items():
        values = truth.to_numpy(dtype=float)
        drawn = resampled_taus(np.stack(list(found.values())), values, archs["group"].tolist(), [pairs])[0]
        intervals = [interval_of(row) for row in drawn]
        table[f"tau_{name}"] = [tau_b(score, values.mean(1), pairs) for score in found.values()]
        table[f"tau_{name}_low"] = [interval.low for interval in intervals]
        table[f"tau_{name}_high"] = [interval.high for interval in intervals]
    table.loc[: own - 1, [column for column in table if column.startswith("tau_short")]] = np.nan
    return table


def main() -> None:
    """Read both, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN", help="a ranking, and one of longer trainings")
    parser.add_argument("--scores", nargs="+", default=SCORES)
    parser.add_argument("--out", type=Path, default=Path("longer.csv"))
    parser.add_argument("--quick", action="store_true", help="the committed tables and two scores: to see that it runs")
    options = parser.parse_args()
    if options.quick:
        options.runs, options.scores = [HERE, HERE / "longer"], SCORES[:2]
        options.out = Path("runs/quick/longer.csv")
        options.out.parent.mkdir(parents=True, exist_ok=True)
    if len(options.runs) != 2:
        parser.error("give two folders: RUN LONG")
    short, long = (run / "rank" if (run / "rank").is_dir() else run for run in options.runs)
    truth = pd.read_csv(long / "truth.csv", dtype={"key": str})
    archs = pd.read_csv(short / "archs.csv", dtype={"key": str})
    scores = pd.read_csv(short / "scores.csv", dtype={"key": str})
    unknown = set(options.scores) - set(scores["score"])
    if unknown:
        parser.error(f"--scores {', '.join(sorted(unknown))}: {short} has {', '.join(sorted(set(scores['score'])))}")
    table = compared(
        archs[archs["key"].isin(truth["key"])],
        pd.read_csv(short / "truth.csv", dtype={"key": str}),
        truth,
        scores[scores["score"].isin(options.scores)],
    )
    print(table.to_string(index=False, float_format="%.2f"))
    table.to_csv(options.out, index=False)


if __name__ == "__main__":
    main()
