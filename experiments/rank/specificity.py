"""Are archs matched to their teacher? Two rankings of the same archs under teachers of different families.

    python experiments/rank/specificity.py RUN_1 RUN_2 [--scores "supernet KL" "tuned subnet"] [--out FOLDER]
reads truth.csv and scores.csv of both (in RUN/rank, or in RUN itself: experiments/rank experiments/rank/vgg) and
archs.csv of the first, and writes anova.csv (variance of archs, teachers, their interaction and seeds; of the archs
that both taught from two seeds) and own_and_other.csv (tau of a teacher's own score with its own students, against the
other teacher's score, inside the bands; of all archs that both taught, with the seeds that there are). The archs are
the same under both teachers: a score that is chosen on one of them is confirmed on another teacher, not on other archs.

Hardware: any machine. Seeds: those of the rankings, two each, of 112 archs.
Result: archs differ by 2.42 points of standard deviation, archs by teachers by 0.16 (p 0.22); a teacher's own
scores rank its students no better than the other's (0.02, interval with 0 in it).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from two_teachers import common_truth, crossed_truth, own_and_other, two_way

HERE = Path(__file__).parent


def main() -> None:
    """Read both rankings, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN", help="two rankings of the same archs")
    parser.add_argument("--scores", nargs="+", default=["supernet KL", "tuned subnet"])
    parser.add_argument("--names", nargs=2, help="of the teachers; those of the runs otherwise")
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--quick", action="store_true", help="the committed tables and one score: to see that it runs")
    options = parser.parse_args()
    if options.quick:
        options.runs, options.out = [HERE, HERE / "vgg"], Path("runs/quick/specificity")
        options.scores = options.scores[:1]
    if len(options.runs) != 2:
        parser.error("give two folders: RUN_1 RUN_2")
    folders = [run / "rank" if (run / "rank").is_dir() else run for run in options.runs]
    truths = [pd.read_csv(folder / "truth.csv", dtype={"key": str}) for folder in folders]
    archs = pd.read_csv(folders[0] / "archs.csv", dtype={"key": str})
    keys, values = common_truth(truths)
    groups = archs.set_index("key")["group"].reindex(keys)
    banded = groups.str.startswith("band ").to_numpy()
    tables = []
    for name in options.scores:
        scores = np.stack([signed(folder, name, keys) for folder in folders])
        names = options.names or [run.name for run in options.runs]
        found = own_and_other(values[banded], scores[:, banded], names, groups[banded].tolist())
        tables.append(found.assign(score=name))
    both = pd.concat(tables, ignore_index=True)
    print(both.to_string(index=False, float_format="%.3f"))
    options.out.mkdir(parents=True, exist_ok=True)
    both.to_csv(options.out / "own_and_other.csv", index=False)
    keys, values = crossed_truth(truths)  # the last, as it needs two seeds under both teachers
    anova = two_way(100 * values).assign(archs=len(keys), seeds=values.shape[2])
    print(f"accuracy in points\n{anova.to_string(index=False, float_format='%.3f')}")
    anova.to_csv(options.out / "anova.csv", index=False)


def signed(folder: Path, score: str, keys: list[str]) -> np.ndarray:
    """Read a score of some archs, higher is better: (N,)."""
    table = pd.read_csv(folder / "scores.csv", dtype={"key": str})
    if score not in set(table["score"]):
        raise SystemExit(f"--scores {score!r}: {folder} has {', '.join(sorted(set(table['score'])))}")
    table = table[table["score"] == score].set_index("key")
    sign = 1.0 if (table["better"] == "higher").all() else -1.0
    values: np.ndarray = sign * table["value"].reindex(keys).to_numpy(dtype=float)
    return values


if __name__ == "__main__":
    main()
