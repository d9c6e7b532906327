"""How much does successive halving lose against rating every candidate on all images, and what does it save?

8 x 8 digits, a space of 252, 756 and 756 rows, stages trained blockwise for ten epochs on a ResNet-14 teacher. Each
stage is rated (`blockwise.error=nmse`) on all 300 rating images, and again by halving down to about a half, a quarter,
an eighth and a sixteenth of its rows on growing numbers of images. Saved: layer evaluations times images. Lost: how
much worse, by the full scores, the exact front of the halved tables is than that of the full ones, over 50 budgets
evenly spaced in MACs; how often it is not worse at all; and how many of the full front's rows were dropped.

Command: OMP_NUM_THREADS=1 nice python experiments/halving.py; writes experiments/results/halving; half an hour.
Hardware: one busy core of an AMD EPYC. Result, means of two seeds:

| rows asked for | to the end % | work | mean loss % | worst loss % | budgets without loss % | front's rows dropped % |
|---|---|---|---|---|---|---|
| 1/1 | 100 | 1.00 | 0 | 0 | 100 | 0 |
| 1/2 | 54 | 1.07 | 0.13 | 2.7 | 87 | 8 |
| 1/4 | 31 | 0.89 | 0.36 | 4.8 | 72 | 13 |
| 1/8 | 18 | 0.66 | 1.2 | 7.3 | 51 | 24 |
| 1/16 | 11 | 0.48 | 3.0 | 11.3 | 37 | 36 |

Candidates share their first layers, so that dropping half of them saves far less than half of the work, and the early
rounds cost more than that: halving is for stages that cannot be rated whole. Hence it begins above 20,000 rows only.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from stand_in import HELP, QUICK

import nas_kd
from nas_kd.blocks import BasicStage, ConvStem, LinearHead
from nas_kd.rate.errors import NMSE
from nas_kd.rate.features import BATCH, gather
from nas_kd.rate.halving import by_entry, rate_stage
from nas_kd.rate.tree import tree_size
from nas_kd.runtime.device import Runtime
from nas_kd.space import ElasticSpace
from nas_kd.space.rows import full_rows, rows_of
from nas_kd.train.blockwise import train_blockwise
from nas_kd.train.blockwise_config import BlockwiseConfig
from nas_kd.train.stages import Blockwise

RUN = Path("runs/halving")
RESULTS = Path(__file__).parent / "results" / "halving"
PARTS = (1, 2, 4, 8, 16)
BUDGETS = 50
SPACE = ElasticSpace(
    "halving",
    ConvStem(width=8),
    (
        BasicStage(widths=(4, 6, 8), depths=(1, 2, 3), mids=(2, 4, 6, 8), stride=1),
        BasicStage(widths=(8, 12, 16), depths=(1, 2, 3), mids=(4, 8, 12, 16), stride=2),
        BasicStage(widths=(16, 24, 32), depths=(1, 2, 3), mids=(8, 16, 24, 32), stride=2),
    ),
    LinearHead(),
    resolution=8,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=HELP)
    quick = parser.parse_args().quick
    run, results = (QUICK / "halving", QUICK / "halving") if quick else (RUN, RESULTS)
    seeds, parts, epochs, subset = (1, (1, 16), 2, 300) if quick else (2, PARTS, 10, None)
    runtime = Runtime("cpu", threads=1)
    held_out = 30 if quick else 300
    data = nas_kd.load_data("digits", rate=held_out, select=100, subset=subset)
    teacher = nas_kd.train_teacher("cifar_resnet14", data, run=run, epochs=epochs + 2, lr=0.1, runtime=runtime)
    taps = teacher.bind(data).match(SPACE, data.resolution)
    rows = []
    for seed in range(seeds):
        net = nas_kd.Supernet(SPACE, num_classes=data.num_classes, in_chans=data.in_chans, seed=seed)
        model = Blockwise(net, taps, init="scratch", seed=seed)
        calibration = model.rescale(gather(model, teacher, data.train.clean(BATCH, limit=512), runtime))
        rating = gather(model, teacher, data.rate.clean(BATCH), runtime)
        train_blockwise(model, teacher, data, BlockwiseConfig(epochs=epochs, lr=0.03), seed=seed, runtime=runtime)
        shape = {"resolution": data.resolution, "in_chans": data.in_chans, "num_classes": data.num_classes}
        every = [rows_of(SPACE, index, **shape) for index in range(3)]
        rated = {
            part: [
                rate_stage(model, i, table, calibration[i], rating[i], max_rows=-(-len(table) // part), error=NMSE)
                for i, table in enumerate(every)
            ]
            for part in parts
        }
        for part, tables in rated.items():
            rows.append({"seed": seed, "rows": f"1/{part}", **lost(tables, rated[1])})
            print(rows[-1], flush=True)
    results.mkdir(parents=True, exist_ok=True)
    found = pd.DataFrame(rows)
    found.to_csv(results / "halving.csv", index=False)
    print(found.groupby("rows", sort=False).mean(numeric_only=True).drop(columns="seed").round(4).to_string())


def work(tables: Sequence[pd.DataFrame]) -> float:
    """Count layer evaluations times rating images; a row was in every round up to its number of images."""
    total = 0.0
    for index, table in enumerate(tables):
        for images in sorted(table["images"].unique()):
            for _, rows in by_entry(SPACE, index, table[table["images"] >= images]):
                total += tree_size(SPACE.stages[index].candidates(), rows["candidate"].tolist()) * int(images)
    return total


def lost(halved: Sequence[pd.DataFrame], full: Sequence[pd.DataFrame]) -> dict[str, float]:
    """Compare the front of halved tables with that of full ones, by the full scores."""
    kept = [full_rows(table) for table in halved]
    fronts = nas_kd.exact_front(kept), nas_kd.exact_front(full)
    names = [f"row_{number}" for number in range(1, len(full) + 1)]
    true = [
        sum(full[stage].loc[row[name], "score"] for stage, name in enumerate(names)) for _, row in fronts[0].iterrows()
    ]
    found = fronts[0].assign(score=true)
    budgets = np.linspace(fronts[1]["macs"].iloc[0], fronts[1]["macs"].iloc[-1], BUDGETS)
    best = [[front[front["macs"] <= budget]["score"].min() for front in (found, fronts[1])] for budget in budgets]
    mine, theirs = np.array(best).T
    wanted = [set(fronts[1][name]) for name in names]
    dropped = sum(len(rows - set(table.index)) for rows, table in zip(wanted, kept, strict=True))
    return {
        "rated_to_the_end": sum(map(len, kept)) / sum(map(len, full)),
        "work": work(halved) / work(full),
        "mean_loss_percent": 100 * float((mine / theirs - 1).mean()),
        "worst_loss_percent": 100 * float((mine / theirs - 1).max()),
        "budgets_without_loss_percent": 100 * float((mine <= theirs * (1 + 1e-12)).mean()),
        "front_rows_dropped_percent": 100 * dropped / sum(map(len, wanted)),
    }


if __name__ == "__main__":
    main()
