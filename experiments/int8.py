"""Claim to test: does a student lose less in 8 bits when it was fine-tuned through rounding, taught by its teacher?

    OMP_NUM_THREADS=1 nice python experiments/int8.py [--seeds 3] [--quick]

Digits. A ResNet-14 (12 epochs of labels) teaches two networks of the space `digits`, smallest and drawn, by kd for 12
epochs. Each is exported to ONNX, quantised after training, and once more after two epochs of fine-tuning through
rounding, taught by the teacher and by itself, and, as the control, after two epochs of the same without rounding. All
344 test images; one is 0.29 points. A row a student and form goes to results/int8.

Hardware: one thread on two cores that other work shared. Numbers: results/int8/summary.csv and the README beside this.
"""

from __future__ import annotations

import argparse
from copy import deepcopy
from pathlib import Path
from time import process_time
from typing import Any

import pandas as pd
from stand_in import HELP, QUICK

import nas_kd
from nas_kd.runtime.device import Runtime
from nas_kd.train.tune_int8 import LR

OUT = Path(__file__).parent / "results" / "int8"
FORMS = {"onnxruntime": "exact", "onnxruntime int8": "int8", "onnxruntime int8 tuned": "int8 tuned"}


def main() -> None:
    """Train, export, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help=HELP)
    options = parser.parse_args()
    out = QUICK / "int8" if options.quick else OUT
    epochs, subset = (1, 300) if options.quick else (12, None)
    runtime = Runtime("cpu", threads=1)
    data = nas_kd.load_data("digits", rate=0.1, select=0.1, subset=subset)
    run = QUICK / "int8_run" if options.quick else Path("runs/int8")
    teacher = nas_kd.train_teacher("cifar_resnet14", data, run=run, epochs=epochs, lr=0.1, batch_size=64)
    space = nas_kd.load_space("digits")
    rows: list[dict[str, Any]] = []
    for seed in range(1 if options.quick else options.seeds):
        for name, arch in (("smallest", space.smallest()), ("drawn", space.sample(seed))):
            how: dict[str, Any] = {"space": space, "method": "kd", "epochs": epochs, "seed": seed, "runtime": runtime}
            student = nas_kd.retrain(arch, teacher, data, run=run, folder=f"retrain/{name}_{seed}", **how)
            for who, source in (("teacher", teacher), ("itself", None), ("teacher, not rounded", teacher)):
                begun = process_time()
                if who.endswith("rounded"):  # what two more epochs do by themselves
                    more = how | {"epochs": 2, "lr": LR, "warmup_epochs": 0.0, "batch_size": 128, "test": False}
                    tuned = nas_kd.retrain(deepcopy(student), teacher, data, **more)
                else:
                    tuned = nas_kd.tune_int8(student, source, data, epochs=2, seed=seed, runtime=runtime)
                seconds = process_time() - begun
                made = nas_kd.export(student, "onnx", run / "students" / f"{name}_{seed}.onnx", int8=data, tuned=tuned)
                for row in made.int8:
                    if row.form in FORMS:
                        known = {"student": name, "seed": seed, "form": FORMS[row.form]}
                        known |= {"taught_by": who if "tuned" in row.form else "", "cpu_seconds": round(seconds, 1)}
                        rows.append(known | {"test_percent": 100 * row.score, "equal_percent": 100 * row.agreement})
    found = pd.DataFrame(rows).drop_duplicates(["student", "seed", "form", "taught_by"])
    out.mkdir(parents=True, exist_ok=True)
    found.round(3).to_csv(out / "students.csv", index=False)
    summary = found.groupby(["student", "form", "taught_by"], sort=False)[["test_percent", "equal_percent"]].mean()
    summary.round(3).to_csv(out / "summary.csv")
    print(summary.round(2).to_string())


if __name__ == "__main__":
    main()
