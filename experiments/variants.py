"""Which form of a method teaches a cut teacher better: forms of one method at their own weights, all else alike.

    python experiments/variants.py --data FOLDER [--images 2200] [--epochs 2] [--seeds 2] [--forms at_paper at_code]

FOLDER holds train.tar, test.tar (CIFAR-10 as JPEG) and resnet56.safetensors. The student is that ResNet-56 cut evenly
in width to 33 % of its MACs, with the teacher's weights; every training sees the same images and views in the same
order and differs in its loss alone. A row a training goes to results/variants/ when it is known; the same command goes
on.
All 10,000 test images, last epoch; the last column is the mean difference from labels alone (`ce`), seed by seed.

One thread of two AMD EPYC cores that other work shared, torch 2.14.1 (seed 1 of AT on another such machine than the
rest); numbers in results/variants/students.csv.
"""

from __future__ import annotations

from pathlib import Path
from time import process_time
from typing import Any

import pandas as pd
from cut_teacher import Given, opened, parser_of

import nas_kd
from nas_kd.derive.even import EvenCut
from nas_kd.distill import Distiller
from nas_kd.runs.files import CsvLog
from nas_kd.runtime.device import Runtime
from nas_kd.teacher import StoredFeatures
from nas_kd.train.network import predict

OUT = Path(__file__).parent / "results" / "variants"
BUDGET = 0.33  # of the teacher's MACs
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "ce": ("ce", {}),
    "at_paper": ("at", {"variant": "paper"}),
    "at_code": ("at", {"variant": "code"}),
    "crd_exact": ("crd", {"variant": "exact"}),
    "crd_shared": ("crd", {"variant": "shared"}),
    "irg_paper": ("irg", {"variant": "paper"}),
    "irg_code": ("irg", {"variant": "code"}),
    "dfa": ("dfa", {}),
}
TASK = nas_kd.Classification(smoothing=0.0)


def even_width(given: Given) -> EvenCut:
    """Return the teacher's even cut in width within the budget."""
    space = nas_kd.teacher_space(given.teacher, given.data)
    shape = {"resolution": given.data.resolution, "in_chans": given.data.in_chans}
    shape["num_classes"] = given.data.num_classes
    most = BUDGET * space.cost(space.largest(), **shape).macs
    cut = space.even_cuts(lambda cost: cost.macs <= most, shape).width()
    assert cut is not None  # a third of a ResNet is always there
    return cut


def main() -> None:
    parser = parser_of(__doc__, OUT)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--forms", nargs="+", choices=list(FORMS), default=list(FORMS), metavar="FORM")
    parser.add_argument("--quick", action="store_true", help="digits; the numbers mean nothing")
    parser.set_defaults(images=2200, run=Path("runs/variants"))
    given = opened(parser, OUT)
    options = given.options
    given.out.mkdir(parents=True, exist_ok=True)
    log = CsvLog(given.out / "students.csv")
    runtime = Runtime("cpu", threads=1)
    cut = even_width(given)
    features = StoredFeatures(given.teacher, given.data)
    size = {"images": len(given.data.train), "epochs": options.epochs}
    known = {(row["form"], int(row["seed"])) for row in log.rows() if all(row[k] == str(v) for k, v in size.items())}
    for seed in range(options.seeds):
        for form in options.forms:
            if (form, seed) in known:
                continue
            method, settings = FORMS[form]
            began = process_time()
            recipe = Distiller(method, TASK, **settings).recipe
            stored = features if recipe.needs_teacher else None
            student = nas_kd.retrain(
                cut.arch,
                given.teacher if recipe.live else stored,
                given.data,
                space=cut.space,
                supernet=nas_kd.Supernet(cut.space),
                method=method,
                method_settings=settings,
                epochs=options.epochs,
                batch_size=64,
                lr=0.01,
                warmup_epochs=0.1,
                seed=seed,
                test=False,
                runtime=runtime,
            )
            seconds = round(process_time() - began, 1)
            accuracy = TASK.metric(predict(student, given.data.test, runtime), given.data.test.labels)
            log.append({"form": form, "seed": seed} | size | {"test_accuracy": accuracy, "cpu_seconds": seconds})
            print(log.rows()[-1], flush=True)
    print(table(log.frame()))


def table(rows: pd.DataFrame) -> str:
    """Word mean and spread over seeds, and the mean difference from labels alone."""
    percent = 100 * rows.pivot(index="seed", columns="form", values="test_accuracy")
    lines = ["| form | seeds | accuracy % (mean ± sd) | minus ce | CPU s a training |", "|---|---|---|---|---|"]
    seconds = rows.groupby("form")["cpu_seconds"].mean()
    for form in percent.mean().sort_values(ascending=False).index:
        values = percent[form].dropna()
        spread = f" ± {values.std():.2f}" if len(values) > 1 else ""
        gain = (percent[form] - percent["ce"]).mean() if "ce" in percent else float("nan")
        lines.append(f"| {form} | {len(values)} | {values.mean():.2f}{spread} | {gain:+.2f} | {seconds[form]:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
