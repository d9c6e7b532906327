"""Does a score beat the sizes by each seed of the truth alone?

    python experiments/rank/by_seed.py RUN ... [--names NAME ...] [--scores SCORE ...] [--out by_seed.csv]
judges chosen scores, as `nas-kd rank` does, by the trainings of one seed at a time. What was chosen on those of one
seed has to stand on those of another: the temperature of the tuned subnet was chosen on seed 0 of the first teacher,
and seed 0 of the second begins with the same weights and order, which seed 1 of either does not.

Hardware: any machine. Result: by_seed.csv; gap of the tuned subnet to the best size 0.21 (seed 0) and 0.11
(seed 1) under the first teacher, 0.15 and 0.22 under the second.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from nas_kd.ranking.summary import joined, summarise

HERE = Path(__file__).parent
QUICK = Path("runs/quick")
SIZES = ("MACs", "parameters", "sum of log widths", "depth", "minus depth")
COLUMNS = [f"{name}{end}" for name in ("band_tau", "minus_size") for end in ("", "_low", "_high")] + ["minus_size_p"]


def main() -> None:
    """Judge, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--names", nargs="+")
    parser.add_argument("--scores", nargs="+", default=["tuned subnet", "supernet KL"])
    parser.add_argument("--out", type=Path, default=Path("by_seed.csv"))
    parser.add_argument("--quick", action="store_true", help="the committed tables, few resamples: to see that it runs")
    options = parser.parse_args()
    if options.quick:
        options.runs, options.out = [HERE], QUICK / "by_seed.csv"
        options.out.parent.mkdir(parents=True, exist_ok=True)
    if not options.runs:
        parser.error("give the folder of one or more rankings")
    names = options.names or [str(run) for run in options.runs]
    resamples = 50 if options.quick else 10_000
    parts = [
        by_seed(run, options.scores, resamples).assign(teacher=name)
        for name, run in zip(names, options.runs, strict=True)
    ]
    found = pd.concat(parts, ignore_index=True)
    found = found[["teacher", *found.columns.drop("teacher")]]
    found.to_csv(options.out, index=False)
    print(found.to_string(index=False, float_format="%.3f"))


def by_seed(run: Path, scores: list[str], resamples: int = 10_000) -> pd.DataFrame:
    """Judge scores by each seed of a ranking.

    Args:
        run: the run, or a folder with its archs.csv, truth.csv and scores.csv.
        scores: names of the scores.
        resamples: of the bootstrap.

    Returns:
        One row a seed and score: seed, archs inside the bands, score, tau inside the bands and gap to the best size,
        both with their intervals, and that gap's p.
    """
    folder = run / "rank" if (run / "rank" / "truth.csv").exists() else run
    files = ("archs", "truth", "scores")
    archs, truth, values = (pd.read_csv(folder / f"{name}.csv", dtype={"key": str}) for name in files)
    values = values[values["score"].isin([*scores, *SIZES])]
    rows = []
    for seed, trained in truth.groupby("seed"):
        ranked = joined(archs, trained, values)
        inside = int(ranked.archs["group"].isin(ranked.bands).sum())
        found = summarise(ranked, primary=scores[0], control="minus depth", resamples=resamples).set_index("score")
        for score in scores:
            own = found.loc[score, COLUMNS].to_dict()
            rows.append({"seed": seed, "archs": inside, "score": score} | own)
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
