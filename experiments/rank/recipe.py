"""Which training makes a truth worth judging by: seed noise against spread, of nets of one size, by recipe.

Trains the first nets of the middle band under every recipe from several seeds; each training is measured with its
own weights and with two averages of them. One row a training, appended as it ends to RUN/recipes.csv:
    python experiments/rank/recipe.py RUN CIFAR10_FOLDER [--nets 12] [--seeds 2] [--recipes "6 epochs" "12 epochs"]
    python experiments/rank/recipe.py RUN --table
where CIFAR10_FOLDER holds train.tar, test.tar and resnet56.safetensors. One thread on a CPU; any number of processes
may work on one RUN; the same command goes on. The second form writes RUN/recipe_summary.csv: for each recipe and
weights the spread of seeds and nets, the split-half tau of the seeds there are, and what it would be with two halves
of 1, 2 and 4 seeds (2/pi arcsin of the reliability), beside CPU seconds a training.

Hardware: one thread on 2 cores of an AMD EPYC shared with other work. Seeds: 0 and 1.
Result: recipe_summary.csv; 0.89 points between seeds after 6 epochs (4 nets), 0.31 after 12 (2 nets).
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from nas_kd import load_data, load_space, load_teacher
from nas_kd.data import Batch, Data
from nas_kd.distill import Classification, Distiller, pair_of
from nas_kd.ranking.config import RankConfig
from nas_kd.ranking.sample import archs_of, sample_archs
from nas_kd.ranking.statistics import noise_of
from nas_kd.runs.files import CsvLog
from nas_kd.runs.lock import held
from nas_kd.runtime.device import Runtime, place
from nas_kd.runtime.seeds import seeded
from nas_kd.space import Arch, ElasticSpace
from nas_kd.teacher import ViewCache
from nas_kd.train.loop import StepInfo, fit
from nas_kd.train.network import predict
from nas_kd.train.optim import Schedule, sgd
from nas_kd.train.plan import Plan

BANDS = (2.5e6, 4.0e6, 6.0e6)
DATA = {"subset": 25_000, "rate": 0.1, "select": 0.3, "views": 8}
RECIPES = {
    "6 epochs": RankConfig(method="kd", epochs=6, lr=0.05),
    "12 epochs": RankConfig(method="kd", epochs=12, lr=0.05),
    "12 epochs, lr 0.02": RankConfig(method="kd", epochs=12, lr=0.02),
    "24 epochs": RankConfig(method="kd", epochs=24, lr=0.05),
    "tiny": RankConfig(method="kd", epochs=1, lr=0.05, batch_size=20, warmup_epochs=0.5),  # of --quick
}
DECAYS = (0.99, 0.998)
WEIGHTS = ("last", *(f"ema_{decay}" for decay in DECAYS))


def main() -> None:
    """Train what is not in the table yet, or write the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, nargs="?", default=Path("runs/quick/recipe"))
    parser.add_argument("cifar10", type=Path, nargs="?")
    parser.add_argument("--nets", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--recipes", nargs="+", default=["6 epochs", "12 epochs"], choices=list(RECIPES))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--quick", action="store_true", help="random images, one epoch: to see that it runs")
    options = parser.parse_args()
    if options.table:
        summarise(options.run)
        return
    torch.set_num_threads(1)
    runtime = Runtime(options.device)
    space = load_space("resnet_cifar")
    if options.quick:
        x = torch.randint(0, 256, (160, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        y = torch.arange(160) % 10
        data = load_data((x[:120], y[:120]), test=(x[120:], y[120:]), rate=40, select=40, views=2)
        teacher = load_teacher("cifar_resnet8", num_classes=10)
        options.nets, options.recipes = 2, ["tiny"]
    elif options.cifar10 is None:
        parser.error("give the folder of train.tar, test.tar and resnet56.safetensors")
    else:
        folder = options.cifar10
        data = load_data(str(folder / "train.tar"), test=str(folder / "test.tar"), **DATA)
        teacher = load_teacher("cifar_resnet56", checkpoint=folder / "resnet56.safetensors", num_classes=10)
    options.run.mkdir(parents=True, exist_ok=True)
    cost = {"resolution": 32, "in_chans": 3, "num_classes": 10}
    table = sample_archs(RankConfig(bands=BANDS), space, cost=cost)
    nets = archs_of(table[table["group"] == "band 2"].head(options.nets))
    cache = ViewCache.open(options.run / "cache", teacher.to(runtime.device).bind(data), data, epochs=0)
    log = CsvLog(options.run / "recipes.csv")
    claims = options.run / "claims"
    for seed in range(options.seeds):
        for arch in nets:
            for name in options.recipes:
                job = f"{name}_{arch.key}_{seed}".replace(" ", "_").replace(",", "")
                with held(claims / f"{job}.lock", wait=False) as ours:
                    done = {(row["recipe"], row["key"], int(row["seed"])) for row in log.rows()}
                    if not ours or (name, arch.key, seed) in done:
                        continue
                    row = train(arch, space, RECIPES[name], data, cache, runtime, seed)
                    row = {"recipe": name, "key": arch.key, "seed": seed} | row | RECIPES[name].training
                    with held(claims / "table.lock", wait=True):
                        log.append(row)
                    print(row, flush=True)
    summarise(options.run)


def train(
    arch: Arch, space: ElasticSpace, how: RankConfig, data: Data, cache: ViewCache, runtime: Runtime, seed: int
) -> dict[str, float]:
    """Train one net and measure its last weights and their averages."""
    begun = time.perf_counter()
    used = time.process_time()
    task = Classification(smoothing=0.0)
    seeded(seed, "init", arch.key)
    model = place(space.build(arch, 10, 3), runtime)
    averages = {
        f"ema_{decay}": AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
        for decay in DECAYS
    }
    distiller = Distiller(how.method, task)
    distiller.bind(pair_of(model, distiller.recipe, cache, (3, 32, 32), 10, len(data.train), seed))

    def step(batch: Batch, info: StepInfo) -> Mapping[str, Tensor]:
        for average in averages.values():
            average.update_parameters(model)
        return distiller.step(batch, info.progress, runtime.autocast())

    fit(
        step,
        Plan(Schedule(how.lr, how.warmup_epochs), how.epochs, how.batch_size),
        name="truth",
        modules={"model": model},
        split=data.train,
        optimizer=sgd([model], weight_decay=how.weight_decay),
        seed=seed,
        runtime=runtime,
    )
    row = {}
    for which, measured in {"last": model, **averages}.items():
        for split in (data.select, data.test):
            row[f"{which}_{split.name}"] = task.metric(predict(measured, split, runtime), split.labels)
    return row | {"seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - used}


def summarise(run: Path) -> None:
    """Write what the rows say of each recipe, as far as they go."""
    rows = pd.read_csv(run / "recipes.csv", dtype={"key": str})
    found = []
    for name, part in rows.groupby("recipe", sort=False):
        for weights in WEIGHTS:
            images = {"select": 7_493, "test": 10_000}
            part = part.assign(
                accuracy=sum(part[f"{weights}_{s}"] * n for s, n in images.items()) / sum(images.values())
            )
            truth = 100 * part.pivot(index="key", columns="seed", values="accuracy").to_numpy(dtype=float)
            noise = noise_of(truth)
            row = {
                "recipe": name,
                "weights": weights,
                "trainings": len(part),
                "nets_of_two_seeds": noise.archs,
                "accuracy": 100 * part["accuracy"].mean(),
                "seed_sd": noise.seed_sd,
                "arch_sd": noise.arch_sd,
                "split_half": noise.split_half,
                "cpu_seconds": part["cpu_seconds"].mean(),
            }
            for seeds in (1, 2, 4):
                spread = noise.arch_sd**2 + noise.seed_sd**2 / seeds
                share = noise.arch_sd**2 / spread if noise.archs and spread > 0 else math.nan
                row[f"expected_tau_{seeds}_against_{seeds}"] = 2 / math.pi * math.asin(share)
            found.append(row)
    frame = pd.DataFrame(found)
    frame.to_csv(run / "recipe_summary.csv", index=False)
    print(frame.to_string(index=False))


if __name__ == "__main__":
    main()
