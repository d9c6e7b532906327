"""Question: how much accuracy do few fixed views an image cost a student, against the cache of all views?

One student of about 2.6 MMACs is distilled from the ResNet-56 on a subset of CIFAR-10 with 1 and 8 fixed views an
image and with all 162, everything else equal. Every training reads the teacher's answers from a cache that is
filled once for all seeds; with all views an epoch shows every image in a view that it has not had before.

Hardware: one thread on 2 cores of an AMD EPYC shared with other work.
Seeds: 0, 1, 2 of weights and order; the data's seed, which the views come from, is 0.
Command: OMP_NUM_THREADS=1 python experiments/views.py --data cifar10-jpeg; it goes on where it was stopped.
Numbers: CIFAR-10 (JPEG q75), 6,000 training images, 20 epochs, all 10,000 test images, mean and sd of 3 seeds:
1 view 57.48 +- 0.75, 8 views 60.86 +- 0.23, all views 60.80 +- 1.49. One view costs 3.3 points in every seed by 2.3
or more; between 8 and all no difference shows in so short a training, where each of the 8 is seen 2.5 times.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from time import perf_counter

import pandas as pd
from stand_in import HELP, QUICK, random_data, untrained_teacher

import nas_kd
from nas_kd.runs.files import CsvLog
from nas_kd.runtime.device import Runtime

VIEWS: tuple[int | str, ...] = (1, 8, "all")


def measure(views: int | str, seed: int, arguments: argparse.Namespace) -> dict[str, float | int | str]:
    """Train one student and measure it once on all test images."""
    if arguments.quick:
        data = random_data(120, views=views, rate=20, select=20)
        teacher = untrained_teacher(data)
    else:
        folder = Path(arguments.data)
        data = nas_kd.load_data(
            folder / "train.tar", test=folder / "test.tar", subset=arguments.images, views=views, rate=500, select=500
        )
        teacher = nas_kd.load_teacher("cifar_resnet56", checkpoint=folder / "resnet56.safetensors", num_classes=10)
    space = nas_kd.load_space("resnet_cifar")
    arch = space.sample(0)
    began = perf_counter()
    student = nas_kd.retrain(
        arch,
        teacher,
        data,
        space=space,
        run=Path(arguments.run) / f"views_{views}",
        method="kd_ls",
        seed=seed,
        epochs=arguments.epochs,
        batch_size=64,
        lr=0.05,
        runtime=Runtime("cpu", threads=1),
    )
    found: dict[str, float] = student.info["metrics"]  # type: ignore[assignment,index]
    return {
        "views": str(views),
        "seed": seed,
        "images": len(data.train),
        "epochs": arguments.epochs,
        "student": arch.label,
        "macs": space.cost(arch, resolution=32, num_classes=10, in_chans=3).macs,
        "test_accuracy": found["test_accuracy"],
        "test_agreement": found["test_agreement"],
        "seconds": round(perf_counter() - began, 1),
    }


def table(frame: pd.DataFrame) -> str:
    """Word mean and spread of each number of views, and what it gains on one view with the same seed."""
    percent = 100 * frame.pivot(index="seed", columns="views", values="test_accuracy")
    agreement = 100 * frame.groupby("views")["test_agreement"].mean()
    lines = ["| views | accuracy % (mean ± sd) | gain on 1 view, seed by seed | agreement % |", "|---|---|---|---|"]
    for views in map(str, VIEWS):
        gain = percent[views] - percent[str(VIEWS[0])]
        lines.append(
            f"| {views} | {percent[views].mean():.2f} ± {percent[views].std():.2f} |"
            f" {gain.mean():+.2f} ({', '.join(f'{g:+.2f}' for g in gain)}) | {agreement[views]:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=os.environ.get("NAS_KD_TEST_DATA"), help="train.tar, test.tar and teacher")
    parser.add_argument("--run", default="runs/views", help="folder of the trainings and of the caches")
    parser.add_argument("--out", default="experiments/results/views/views.csv", help="table, a row a training")
    parser.add_argument("--images", type=int, default=7000, help="1,000 of them are held out")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help=HELP)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.run, arguments.out = QUICK / "views", QUICK / "views.csv"
        arguments.epochs, arguments.seeds = 2, 2
    if not arguments.data and not arguments.quick:
        parser.error("--data is needed: a folder with train.tar, test.tar and resnet56.safetensors")
    Path(arguments.out).parent.mkdir(parents=True, exist_ok=True)
    log = CsvLog(arguments.out)
    for seed in range(arguments.seeds):
        for views in VIEWS:
            done = {(row["views"], int(row["seed"])) for row in log.rows()}
            if (str(views), seed) not in done:
                log.append(measure(views, seed, arguments))
                print(log.rows()[-1], flush=True)
    print(table(log.frame().astype({"views": str})))


if __name__ == "__main__":
    main()
