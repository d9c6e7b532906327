"""Should short trainings that decide a search begin with new weights, or with the supernet's?

    python experiments/rank/last_word.py experiments/rank/resnet56.yaml RUN [--archs 48] [--epochs 3] ...
takes archs inside the bands of a ranking whose truth is trained (RUN/rank), trains each shortly from both, and prints
the tau of each training's results with the truth inside the bands. Rows are kept in last_word.csv; the same command
goes on. Arguments after the run are settings of nas-kd rank (the data and the teacher's checkpoint).

Hardware: one thread on 2 cores of an AMD EPYC shared with other work. Seeds: 0, 44 archs.
Result: last_word.csv; tau of KL, accuracy and agreement 0.68, 0.55 and 0.55 from the supernet's weights, 0.37, 0.39 and
0.42 from new ones; minus depth 0.35.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from nas_kd.analyse.tau import pairs_within, tau_b
from nas_kd.distill import Classification, Distiller
from nas_kd.pipeline.commands import stage_rank
from nas_kd.pipeline.pipeline import Pipeline
from nas_kd.pipeline.read_config import read_config
from nas_kd.ranking.sample import archs_of
from nas_kd.rate.scores.short import TUNING, softened_kl
from nas_kd.runtime.seeds import seeded
from nas_kd.space import Arch
from nas_kd.train.config import TrainingConfig
from nas_kd.train.network import predict, train_network

HERE = Path(__file__).parent
RATES = {"new": 0.05, "supernet": TUNING["lr"]}  # peak learning rate by what a training begins with
MEASURES = {"kl_at_4": -1.0, "accuracy": 1.0, "agreement": 1.0}


def main() -> None:
    """Train what is not trained yet, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", nargs="?", default=HERE.parent / "tiny.yaml")
    parser.add_argument("run", type=Path, nargs="?", default=Path("runs/quick/last_word"))
    parser.add_argument("--archs", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("last_word.csv"))
    parser.add_argument("--quick", action="store_true", help="a tiny ranking of its own, to see that it runs")
    options, settings = parser.parse_known_args()
    config = read_config([str(options.config), "--run", str(options.run), *settings], "rank")
    if config is None:
        return
    if options.quick:
        stage_rank(config)
        options.epochs, options.out = 1, options.run / "last_word.csv"
    table = pd.read_csv(options.run / "rank" / "archs.csv", dtype={"key": str})
    banded = table[table["group"].str.startswith("band ")].head(options.archs)
    rows: list[Any] = []
    if options.out.exists():
        rows = pd.read_csv(options.out, dtype={"key": str}).to_dict("records")
    done = {(row["key"], row["start"], row["epochs"]) for row in rows}
    missing = [
        (arch, start) for arch in archs_of(banded) for start in RATES if (arch.key, start, options.epochs) not in done
    ]
    bench = _Bench(Pipeline(config)) if missing else None
    for arch, start in missing if bench else ():
        rows.append(bench.trained(arch, start, options.epochs))
        pd.DataFrame(rows).to_csv(options.out, index=False)
    truth = pd.read_csv(options.run / "rank" / "truth.csv", dtype={"key": str})
    print(compared(pd.DataFrame(rows), banded, truth).to_string(index=False, float_format="%.3f"))


class _Bench:
    """What all trainings share."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.space = pipeline.space
        self.data = pipeline.data
        self.runtime = pipeline.runtime
        self.net, teacher, task = pipeline.supernet, pipeline.unmatched, Classification(smoothing=0.0)
        self.distiller = Distiller("kd", task)
        self.task = task
        self.cache = teacher.cached(self.data, pipeline.run)
        wanted = self.cache.split_logits("rate", self.data)
        assert wanted is not None
        self.wanted = wanted
        self.labels = torch.cat([batch.y for batch in self.data.rate.clean(512)])

    def trained(self, arch: Arch, start: str, epochs: int) -> dict[str, object]:
        """Train one arch and measure it on the rating split."""
        seeded(0, "last word", arch.key)
        data = self.data
        began = time.process_time()
        fresh = start == "new"
        network = self.space.build(arch, data.num_classes, data.in_chans) if fresh else self.net.extract(arch)
        how = TUNING | {"epochs": epochs, "lr": RATES[start], "warmup_epochs": TUNING["warmup_epochs"] * epochs}
        train_network(
            network,
            data,
            TrainingConfig(**how),
            distiller=self.distiller,
            source=self.cache,
            stage=None,
            name=f"{start} {arch.key}",
            seed=0,
            runtime=self.runtime,
        )
        logits = predict(network, data.rate, self.runtime)
        return {
            "key": arch.key,
            "start": start,
            "epochs": epochs,
            "kl_at_4": softened_kl(self.task, logits, self.wanted),
            "accuracy": self.task.metric(logits, self.labels),
            "agreement": self.task.agreement(logits, self.wanted),
            "cpu_seconds": time.process_time() - began,
        }


def compared(rows: pd.DataFrame, archs: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Return tau-b inside the bands of each start, length and measure with the mean accuracy of the truth."""
    known = archs.set_index("key").join(truth.groupby("key")["accuracy"].mean().rename("truth"), how="inner")
    shared = rows.groupby(["key", "epochs"])["start"].transform("nunique") == len(RATES)  # the same archs for both
    found = []
    for (start, epochs), group in rows[shared].groupby(["start", "epochs"]):
        both = known.join(group.set_index("key"), how="inner")
        pairs = pairs_within(both["group"].tolist())
        taus = {
            name: tau_b(sign * both[name].to_numpy(), both["truth"].to_numpy(), pairs)
            for name, sign in MEASURES.items()
        }
        depth = tau_b(-both["depth"].to_numpy(float), both["truth"].to_numpy(), pairs)
        seconds = both["cpu_seconds"].median()
        row = {"start": start, "epochs": epochs, "archs": len(both)} | taus
        found.append(row | {"minus_depth": depth, "cpu_seconds": seconds})
    return pd.DataFrame(found)


if __name__ == "__main__":
    main()
