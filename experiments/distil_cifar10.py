"""Every distillation method on one pair: a ResNet-56 teaches one found student, all by the same short schedule.

The student is the one that `nas-kd run experiments/cifar10.yaml` found in resnet_cifar. Every training
sees the same images and views in the same epochs; methods differ in their loss alone, at their published weights.
Methods on logits read the teacher's answers from a cache that is filled once for all methods and seeds, methods on
features from the memory of the process; `--views all` shows every image in a new view every epoch. The ends
are plain training (ce) and the teacher itself. Left out: fsp, which needs a teacher of the student's channels;
multi_teacher, which needs two; soft_tree, whose student is a tree; inject, which needs layers of the student's shapes.

`test_accuracy` is of the last epoch on all test images, read once a training. `watched_last` and `watched_best` are
of the last and of the best epoch on 1,000 held-out training images: their difference is what choosing the best epoch
on the images one reports would feign.

In three groups, the telling methods first and those whose step costs several plain ones last, each seed by seed, so
that every beginning is a table. A method's gain on plain training is called real where the 95 % interval of the mean
of the paired differences (Student's t over seeds) leaves 0 out; with fewer than 3 seeds nothing is.

Command: OMP_NUM_THREADS=1 python experiments/distil_cifar10.py --data cifar10-jpeg --images 4600 --epochs 12
It goes on where it was stopped; other --images, --epochs or --views need another --run and another --out.
The table alone: python experiments/distil_cifar10.py --table
Hardware: one thread of 2 cores of an AMD EPYC without AVX-512 shared with other work, torch 2.15; 40 to 400
seconds a training. Numbers: README. ResNet-20 as student and full length: not run, no GPU.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import pandas as pd
from scipy import stats
from stand_in import HELP, QUICK, random_data, untrained_teacher

import nas_kd
from nas_kd.data import Data
from nas_kd.distill import METHODS, Distiller
from nas_kd.runs.files import CsvLog
from nas_kd.runtime.device import Runtime
from nas_kd.space import Arch, Candidate, ElasticSpace
from nas_kd.teacher import StoredFeatures, Teacher, ViewCache
from nas_kd.train.network import predict

STAGES = (  # w16:12 | w32:32,32 | w64:64,48
    Candidate(16, ((12,),)),
    Candidate(32, ((32,), (32,))),
    Candidate(64, ((64,), (48,))),
)
LEFT_OUT = ("fsp", "multi_teacher", "soft_tree", "inject")
FIRST = ("ce", "kd", "kd_ls", "dkd", "dist", "logit_mse", "crd", "at", "sp", "vid", "pkt", "rkd", "fitnet", "review")
DEAR = ("born_again", "takd", "bss", "dafl", "zskt", "dfad", "dfq")
WATCHED = 1000  # images
TASK = nas_kd.Classification(smoothing=0.0)


def groups() -> list[list[str]]:
    """List the methods in the order of their turns: all seeds of a group come before the next group."""
    between = [name for name in METHODS if name not in (*FIRST, *DEAR, *LEFT_OUT)]
    return [list(FIRST), between, list(DEAR)]


@dataclass(frozen=True)
class Setting:
    """What all trainings share."""

    data: Data
    space: ElasticSpace
    arch: Arch
    teacher: Teacher
    cache: ViewCache
    features: StoredFeatures
    run: Path
    epochs: int
    runtime: Runtime

    @property
    def size(self) -> dict[str, Any]:
        """Columns that tell one schedule's rows from another's."""
        shown = self.data.train.views
        return {"images": len(self.data.train), "views": shown and shown.setting, "epochs": self.epochs}


def opened(arguments: argparse.Namespace) -> Setting:
    """Open data, teacher, cache and student."""
    run = Path(arguments.run)
    if arguments.quick:
        data = random_data(120, views=arguments.views, rate=20, select=20)
        teacher = untrained_teacher(data)
    else:
        folder = Path(arguments.data)
        data = nas_kd.load_data(
            folder / "train.tar",
            test=folder / "test.tar",
            subset=arguments.images,
            views=arguments.views,
            rate=WATCHED,
            select=100,
        )
        checkpoint = arguments.checkpoint or folder / "resnet56.safetensors"
        teacher = nas_kd.load_teacher("cifar_resnet56", checkpoint=checkpoint, num_classes=10).bind(data)
    cache = ViewCache.open(run / "cache", teacher, data, epochs=arguments.epochs)
    space = nas_kd.load_space("resnet_cifar")
    arch = Arch(space.hash, STAGES)
    features = StoredFeatures(teacher, data)
    return Setting(data, space, arch, teacher, cache, features, run, arguments.epochs, Runtime("cpu", threads=1))


def measure(method: str, seed: int, at: Setting) -> dict[str, Any]:
    """Train the student by one method and measure it on all test images; a training that diverges has no numbers."""
    recipe = Distiller(method, TASK).recipe
    began = perf_counter()
    stored = at.features if recipe.needs_teacher and recipe.needs_target_features else at.cache
    row: dict[str, Any] = {"method": method, "seed": seed} | at.size
    empty = dict.fromkeys(("test_accuracy", "test_agreement", "watched_last", "watched_best", "best_epoch"))
    try:
        student = nas_kd.retrain(
            at.arch,
            at.teacher if recipe.live else stored,
            at.data,
            space=at.space,
            run=at.run / method,
            method=method,
            seed=seed,
            epochs=at.epochs,
            batch_size=64,
            lr=0.05,
            warmup_epochs=min(1.0, at.epochs / 4),
            test=False,
            runtime=at.runtime,
            assistants=[at.space.largest()] if method == "takd" else [],
        )
    except FloatingPointError as error:
        print(f"{method}, seed {seed}: {error}", flush=True)
        return row | empty | {"seconds": round(perf_counter() - began, 1)}
    epochs = pd.read_csv(at.run / method / "retrain" / at.arch.key / f"seed_{seed}" / "metrics.csv")
    watched = epochs["rate_accuracy"]
    logits = predict(student, at.data.test, at.runtime)
    return row | {
        "test_accuracy": TASK.metric(logits, at.data.test.labels),
        "test_agreement": TASK.agreement(logits, at.cache.split_logits("test")),
        "watched_last": float(watched.iloc[-1]),
        "watched_best": float(watched.max()),
        "best_epoch": int(epochs["epoch"][watched.argmax()]),
        "seconds": round(perf_counter() - began, 1),
    }


def of_teacher(at: Setting) -> dict[str, Any]:
    """Measure the teacher, the upper end."""
    test = TASK.metric(at.cache.split_logits("test"), at.data.test.labels)
    watched = TASK.metric(at.cache.split_logits("rate"), at.data.rate.labels)
    row = {"method": "teacher", "seed": 0} | at.size | {"test_accuracy": test, "test_agreement": 1.0}
    return row | {"watched_last": watched, "watched_best": watched, "best_epoch": None, "seconds": 0.0}


def table(rows: pd.DataFrame) -> str:
    """Word mean and spread over seeds, what each method gains on plain training, and whether that is real."""
    size = ", ".join(f"{value} {name}" for name, value in rows[["images", "views", "epochs"]].iloc[0].items())
    percent = 100 * rows.pivot(index="seed", columns="method", values="test_accuracy")
    feigned = 100 * (rows["watched_best"] - rows["watched_last"]).groupby(rows["method"]).mean()
    agreement = 100 * rows.groupby("method")["test_agreement"].mean()
    lines = [
        f"{size}",
        "",
        "| method | seeds | accuracy % (mean ± sd) | gain on ce [95 % interval] | real | agreement % | best - last |",
        "|---|---|---|---|---|---|---|",
    ]
    for method in percent.mean().sort_values(ascending=False, na_position="last").index:
        values = percent[method].dropna()
        gain = (percent[method] - percent["ce"]).dropna()
        spread = f" ± {values.std():.2f}" if len(values) > 1 else ""
        worth = ("", "") if method in ("ce", "teacher") else gained(gain)
        lines.append(
            f"| {method} | {len(values)} | {values.mean():.2f}{spread} | {worth[0]} | {worth[1]} |"
            f" {agreement[method]:.2f} | {feigned[method]:+.2f} |"
        )
    return "\n".join(lines)


def gained(gain: pd.Series) -> tuple[str, str]:
    """Word the mean of the paired differences with its interval, and whether it is real."""
    mean = float(gain.mean())
    count = len(gain)
    if count < 3:
        return f"{mean:+.2f}", "too few seeds"
    half = float(stats.t.ppf(0.975, count - 1)) * gain.std() / count**0.5
    return f"{mean:+.2f} [{mean - half:+.2f}, {mean + half:+.2f}]", "yes" if abs(mean) > half else "no"


def views(text: str) -> int | str:
    """Read the number of views off the command line."""
    return text if text == "all" else int(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("NAS_KD_TEST_DATA"), help="folder of train.tar and test.tar")
    parser.add_argument("--checkpoint", help="weights of the ResNet-56; default: resnet56.safetensors in that folder")
    parser.add_argument("--run", default="runs/distil_cifar10", help="folder of the trainings and of the cache")
    parser.add_argument("--out", default="experiments/results/distil_cifar10/students.csv", help="a row a training")
    parser.add_argument("--images", type=int, default=4600, help=f"{WATCHED + 100:,} of them are held out")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--views", type=views, default=8, help="of every image, or all")
    parser.add_argument("--methods", nargs="+", choices=sum(groups(), []), default=sum(groups(), []), metavar="METHOD")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--table", action="store_true", help="print the table of the rows in --out, and train nothing")
    parser.add_argument("--quick", action="store_true", help=HELP)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.run, arguments.out = QUICK / "distil_cifar10", QUICK / "distil_cifar10.csv"
        arguments.epochs, arguments.seeds, arguments.methods = 2, 2, ["ce", "kd", "at"]
    if arguments.table:
        print(table(pd.read_csv(arguments.out)))
        return
    if not arguments.data and not arguments.quick:
        parser.error("--data is needed: a folder with train.tar, test.tar and resnet56.safetensors")
    Path(arguments.out).parent.mkdir(parents=True, exist_ok=True)
    log = CsvLog(arguments.out)
    at = opened(arguments)
    size = tuple(map(str, at.size.values()))
    done = {(row["method"], int(row["seed"])) for row in log.rows() if tuple(row[name] for name in at.size) == size}
    if ("teacher", 0) not in done:
        log.append(of_teacher(at))
    for group in groups():
        for seed in range(arguments.seeds):
            for method in group:
                if method in arguments.methods and (method, seed) not in done:
                    log.append(measure(method, seed, at))
                    print(log.rows()[-1], flush=True)
    print(table(log.frame()))


if __name__ == "__main__":
    main()
