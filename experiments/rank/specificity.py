"""Are archs matched to their teacher? Two rankings of the same archs under teachers of different families.

    python experiments/rank/specificity.py RUN_1 RUN_2 [--score "supernet KL"] [--out FOLDER]
reads truth.csv and scores.csv of both (in RUN/rank, or in RUN itself: experiments/rank experiments/rank/vgg) and
archs.csv of the first, and writes anova.csv (variance of archs, teachers, their interaction and seeds; of the archs
that both taught from two seeds) and own_and_other.csv (tau of a teacher's own score with its own students, against the
other teacher's score, inside the bands; of all archs that both taught, with the seeds that there are). The archs are
the same under both teachers: a score that is chosen on one of them is confirmed on another teacher, not on other archs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from nas_kd.analyse.rank_teachers import common_truth, crossed_truth, own_and_other, two_way


def main() -> None:
    """Read both rankings, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs=2)
    parser.add_argument("--score", default="supernet KL")
    parser.add_argument("--out", type=Path, default=Path("."))
    options = parser.parse_args()
    folders = [run / "rank" if (run / "rank").is_dir() else run for run in options.runs]
    truths = [pd.read_csv(folder / "truth.csv", dtype={"key": str}) for folder in folders]
    keys, values = crossed_truth(truths)
    anova = two_way(100 * values)
    print(f"{len(keys)} archs of {values.shape[2]} seeds, accuracy in points\n{anova.to_string(index=False)}")
    keys, values = common_truth(truths)
    rows = []
    for folder in folders:
        table = pd.read_csv(folder / "scores.csv", dtype={"key": str})
        if options.score not in set(table["score"]):
            parser.error(f"--score {options.score!r}: {folder} has {', '.join(sorted(set(table['score'])))}")
        table = table[table["score"] == options.score].set_index("key")
        sign = 1.0 if (table["better"] == "higher").all() else -1.0
        rows.append(sign * table["value"].reindex(keys).to_numpy(dtype=float))
    archs = pd.read_csv(folders[0] / "archs.csv", dtype={"key": str}).set_index("key").reindex(keys)
    banded = archs["group"].str.startswith("band ").to_numpy()
    names = [run.name for run in options.runs]
    both = own_and_other(values[banded], np.stack(rows)[:, banded], names, archs["group"][banded].tolist())
    print(f"{options.score}\n{both.to_string(index=False)}")
    options.out.mkdir(parents=True, exist_ok=True)
    anova.to_csv(options.out / "anova.csv", index=False)
    both.assign(score=options.score).to_csv(options.out / "own_and_other.csv", index=False)


if __name__ == "__main__":
    main()
