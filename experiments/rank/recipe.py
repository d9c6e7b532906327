"""Which training makes a truth worth judging by: seed noise and spread of nets of one size, by recipe.

Trains a few nets of the middle band under every recipe from several seeds; each training is measured with its
own weights and with two averages of them. One row a training, appended as it ends:
    python experiments/rank/recipe.py RUN CIFAR10_FOLDER [--nets 6] [--seeds 2]
where CIFAR10_FOLDER holds train.tar, test.tar and resnet56.safetensors. One thread; the same command goes on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from nas_kd import load_data, load_space, load_teacher
from nas_kd.data import Batch
from nas_kd.distill import Classification, Distiller, pair_of, target_source
from nas_kd.files import CsvLog
from nas_kd.runtime import Runtime, place, seeded
from nas_kd.teacher import ViewCache
from nas_kd.train.loop import Moment, fit
from nas_kd.train.network import predict
from nas_kd.train.optim import Schedule, sgd
from nas_kd.verbs.rank_sample import archs_of, sample_archs
from nas_kd.verbs.rank_truth import Alone

BANDS = (2.5e6, 4.0e6, 6.0e6)
DATA = {"subset": 25_000, "rate": 0.1, "select": 0.3, "views": 8}
RECIPES = {
    "6 epochs": Alone(method="kd", epochs=6, lr=0.05),
    "12 epochs": Alone(method="kd", epochs=12, lr=0.05),
}
DECAYS = (0.99, 0.998)


def main() -> None:
    """Train what is not in the table yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("cifar10", type=Path)
    parser.add_argument("--nets", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    runtime, space = Runtime("cpu"), load_space("resnet_cifar")
    data = load_data(str(options.cifar10 / "train.tar"), test=str(options.cifar10 / "test.tar"), **DATA)
    print({split.name: len(split) for split in data.splits}, flush=True)
    teacher = load_teacher(
        "cifar_resnet56", checkpoint=options.cifar10 / "resnet56.safetensors", num_classes=10
    ).bind(data)
    options.run.mkdir(parents=True, exist_ok=True)
    cost = {"resolution": 32, "in_chans": 3, "num_classes": 10}
    table = sample_archs(space, bands=BANDS, seed=0, cost=cost)
    table.to_csv(options.run / "archs.csv", index=False)
    nets = table[table["group"] == "band 2"].head(options.nets)
    cache = ViewCache.open(options.run / "cache", teacher, data, epochs=0)
    log = CsvLog(options.run / "recipes.csv")
    done = {(row["recipe"], row["key"], int(row["seed"])) for row in log.rows()}
    task = Classification(smoothing=0.0)
    for seed in range(options.seeds):
        for arch in archs_of(nets):
            for name, how in RECIPES.items():
                if (name, arch.key, seed) in done:
                    continue
                begun, used = time.perf_counter(), time.process_time()
                seeded(seed, "init", arch.key)
                model = place(space.build(arch, 10, 3), runtime)
                averages = {
                    f"ema_{decay}": AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
                    for decay in DECAYS
                }
                distiller = Distiller(how.method, task)
                source = target_source(cache, features=False)
                distiller.bind(pair_of(model, distiller.recipe, source, (3, 32, 32), 10, len(data.train), seed))

                def step(batch: Batch, moment: Moment) -> Mapping[str, Tensor]:
                    for average in averages.values():  # noqa: B023  # called before the loop goes on
                        average.update_parameters(model)  # noqa: B023
                    return distiller.step(batch, moment.progress, runtime.autocast())  # noqa: B023

                fit(
                    step, name="truth", modules={"model": model}, split=data.train, batch_size=how.batch_size,
                    epochs=how.epochs, optimizer=sgd([model], weight_decay=how.weight_decay), seed=seed,
                    runtime=runtime, schedule=Schedule(how.lr, how.warmup_epochs),
                )  # fmt: skip
                row = {"recipe": name, "key": arch.key, "seed": seed}
                for which, measured in {"last": model, **averages}.items():
                    for split in (data.select, data.test):
                        row[f"{which}_{split.name}"] = task.metric(predict(measured, split, runtime), split.labels)
                row |= {"seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - used}
                log.append(row | asdict(how))
                print(row, flush=True)


if __name__ == "__main__":
    main()
