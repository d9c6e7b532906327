"""Every distillation method on a student that inherits: the network found in a teacher's own space, taught by each.

    python experiments/methods.py --data FOLDER [--budget 0.33] [--seeds 3] [--methods NAME ...]
    python experiments/methods.py --data flowers.tar --resolution 96 --images 2000 --model tf_efficientnet_lite0
        --weights flowers_teacher.safetensors --budget 0.3 --run DIR --out FOLDER
        --methods ce kd kd_ls dkd dist review nst logit_mse fitnet crd at kd_labels kd_cool kd_hot kd_hot_labels
    python experiments/methods.py --data digits --budget 0.08 --epochs 6 --run DIR --out FOLDER --methods (the same)
    python experiments/methods.py --tables experiments/results/methods experiments/results/methods_flowers ...

Data and teachers are those of teacher_space.py, or the quick start's. The student is its ``found, units repaired
only``, what a run begins with by default. Every training begins with these weights, sees the same images and views in
the same order, and differs in its loss alone, each method at its published weights; at_code and the like are other
forms of one method (`variant`; labels at full weight, temperatures of 2 and 16 where 4 is usual, both). A method that
makes its own images (dafl, zskt, dfad, dfq) sees no others, one that pairs images (cs_kd) orders them; born_again's
teacher and the peers of dml and grafting are networks of the student's arch with new weights, as in their papers. Left
out: multi_teacher, which needs two teachers; takd, which needs networks in between; soft_tree, whose student is a
tree; methods of texts.

Methods on logits read the teacher's stored answers, methods on features their maps from memory, and those that need
the teacher's gradient or other images than these run it live. Last epoch, all test images. A row is written when it is
known, beside the test images that are right (hits.csv); the same command goes on. Gains are over labels alone (`ce`)
and over `kd`, seed by seed and image by image, with a 95 % interval over images and seeds; CPU seconds include the
teacher's where it runs live; maps are made by the first method that needs them.

Hardware: one thread of two AMD EPYC cores (AVX-512) that other work shared, torch 2.14.1. Results: results/methods/,
results/methods_flowers/ and results/methods_digits/.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from itertools import product
from pathlib import Path
from time import process_time
from typing import Any

import pandas as pd
from cut_teacher import opened, parser_of
from paired_table import packed, unpacked
from teacher_space import TRAINING, Trial

import nas_kd
from nas_kd.analyse.paired import paired_difference
from nas_kd.distill import METHODS, Distiller
from nas_kd.runs.files import CsvLog, read_frame
from nas_kd.runtime.device import Runtime
from nas_kd.teacher import StoredFeatures
from nas_kd.train.measured import measure

OUT = Path(__file__).parent / "results" / "methods"
LEFT_OUT = ("multi_teacher", "takd", "soft_tree")
FIRST = ("ce", "kd", "kd_ls", "dkd", "dist", "logit_mse", "review", "nst", "fitnet", "crd", "at")
DEAR = ("born_again", "bss", "dfa", "dafl", "zskt", "dfad", "dfq")  # a step costs several plain ones
VARIANTS = {
    "at_code": ("at", {"variant": "code"}),
    "crd_shared": ("crd", {"variant": "shared"}),
    "irg_code": ("irg", {"variant": "code"}),
    "kd_labels": ("kd", {"ce": 1.0}),
    "kd_cool": ("kd", {"temperature": 2.0}),
    "kd_hot": ("kd", {"temperature": 16.0}),
    "kd_hot_labels": ("kd", {"ce": 1.0, "temperature": 16.0}),
}
BASES = ("ce", "kd")  # what the others are compared with


def forms() -> dict[str, tuple[str, dict[str, Any]]]:
    """Map the name of a row to a method and its settings, the telling ones first and the dear ones last."""
    taught = [name for name, entry in METHODS.items() if not entry.texts and name not in LEFT_OUT]
    between = [name for name in taught if name not in FIRST + DEAR]
    return {name: (name, {}) for name in (*FIRST, *between)} | VARIANTS | {name: (name, {}) for name in DEAR}


def main() -> None:
    """Train what is not trained yet, and print the table."""
    known = forms()
    parser = parser_of(__doc__, OUT)
    parser.add_argument("--budget", type=float, default=0.33)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=TRAINING["epochs"])
    parser.add_argument("--methods", nargs="+", choices=list(known), default=list(known), metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="digits, one seed of a few methods, to see that it works")
    parser.add_argument("--tables", nargs="+", type=Path, metavar="FOLDER", help="print finished ones side by side")
    parser.set_defaults(images=2200, run=Path("runs/methods"))
    if (folders := parser.parse_args().tables) is not None:
        print(side_by_side(folders))
        return
    options, data, teacher, out = opened(parser, OUT)
    seeds, names = (1, ["ce", "kd", "at_code"]) if options.quick else (options.seeds, options.methods)
    out.mkdir(parents=True, exist_ok=True)
    training = TRAINING | {"epochs": options.epochs}
    trial = Trial(data, teacher, options.budget, options.run, training)
    begun = trial.begun(trial.net, trial.arch)
    features = StoredFeatures(teacher, data)
    task = nas_kd.Classification()
    log, hits = CsvLog(out / "students.csv"), CsvLog(out / "hits.csv")
    size = {"images": len(data.train), "budget": options.budget, "epochs": options.epochs}
    own = [row for row in log.rows() if all(row[name] == str(value) for name, value in size.items())]
    done = {(row["method"], int(row["seed"])) for row in own}
    if len(own) < len(log.rows()):
        parser.error(f"--out with rows of {size}: {log.path} has others")
    for seed, name in product(range(seeds), names):
        if (name, seed) in done:
            continue
        method, settings = known[name]
        recipe = Distiller(method, task, **settings).recipe
        stored = features if recipe.needs_target_features else trial.logits
        source = teacher if recipe.live else stored if recipe.needs_teacher else None
        how = training | {"method": method, "method_settings": settings, "seed": seed, "test": False}
        row: dict[str, Any] = {"method": name, "seed": seed} | size
        spent = process_time()
        try:
            student: Any = nas_kd.retrain(deepcopy(begun), source, data, **how)
        except FloatingPointError as error:  # a training that diverges is a row without numbers
            print(f"{name}, seed {seed}: {error}", flush=True)
            log.append(row | dict.fromkeys(("test_accuracy", "select_accuracy")) | {"cpu_seconds": 0.0})
            continue
        spent = process_time() - spent
        metrics, logits = measure(student, data.test, task, Runtime(), None)
        right = packed(task.scores(logits, data.test.labels))
        hits.append({"method": name, "seed": seed, "hits": right})  # before its row
        row |= {"test_accuracy": metrics["accuracy"], "select_accuracy": student.info["metrics"]["select_accuracy"]}
        log.append(row | {"cpu_seconds": round(spent, 1)})
        print(log.rows()[-1], flush=True)
    summary = summarised(read_frame(log.path), read_frame(hits.path)).round(4)
    summary.to_csv(out / "summary.csv", index=False)
    print(table(summary))


def summarised(frame: pd.DataFrame, hits: pd.DataFrame) -> pd.DataFrame:
    """Return a row a method: its accuracy over seeds, and its gains over `BASES` on the same seeds and images."""
    right = hits.drop_duplicates(["method", "seed"], keep="last").set_index(["method", "seed"]).hits
    trained = frame.dropna(subset="test_accuracy")
    rows = []
    for name in frame.method.unique():
        group = trained[trained.method == name]
        row = {"method": name, "seeds": len(group), "diverged": int((frame.method == name).sum()) - len(group)}
        row |= {"test_accuracy": group.test_accuracy.mean(), "spread": group.test_accuracy.std()}
        row |= {"select_accuracy": group.select_accuracy.mean(), "cpu_seconds": group.cpu_seconds.mean()}
        for base in BASES:
            seeds = sorted(set(group.seed) & set(trained[trained.method == base].seed))
            if name != base and seeds:
                gain = paired_difference(*([unpacked(right[each, seed]) for seed in seeds] for each in (name, base)))
                columns = {"": gain.mean, "_low": gain.interval[0], "_high": gain.interval[1], "_seeds": len(seeds)}
                row |= {f"on_{base}{what}": number for what, number in columns.items()}
        rows.append(row)
    return pd.DataFrame(rows).sort_values("test_accuracy", ascending=False)


def table(summary: pd.DataFrame) -> str:
    """Word a summary in markdown."""
    gains = " | ".join(f"gain on {base}" for base in BASES)
    lines = [f"| method | accuracy % | {gains} | seeds | CPU s a training |", "|---|---|---|---|---|---|"]
    for row in summary.to_dict("records"):
        spread = "" if pd.isna(row["spread"]) else f" ± {100 * row['spread']:.2f}"
        accuracy = f"{100 * row['test_accuracy']:.2f}{spread}"
        told = " | ".join(_gain(row, f"on_{base}") for base in BASES)
        lines.append(f"| {row['method']} | {accuracy} | {told} | {row['seeds']} | {row['cpu_seconds']:.0f} |")
    return "\n".join(lines)


def side_by_side(folders: Sequence[Path]) -> str:
    """Word the gains on labels alone of what is in the summaries of all folders, by their mean."""
    frames = [pd.read_csv(folder / "summary.csv").set_index("method") for folder in folders]
    names = [name for name in frames[0].index if all(name in frame.index for frame in frames)]
    base = BASES[0]
    means = {
        name: 0.0 if name == base else sum(f.loc[name, f"on_{base}"] for f in frames) / len(frames) for name in names
    }
    lines = [f"| method | {' | '.join(f.name for f in folders)} | mean |", "|---|" + "---|" * (len(folders) + 1)]
    for name in sorted(names, key=lambda name: -means[name]):
        told = [_gain(frame.loc[name].to_dict(), f"on_{base}") for frame in frames]
        lines.append(f"| {name} | {' | '.join(told)} | {100 * means[name]:.1f} |")
    return "\n".join(lines)


def _gain(row: dict[str, Any], name: str) -> str:
    percent = [100 * row.get(f"{name}{end}", float("nan")) for end in ("", "_low", "_high")]
    return "" if pd.isna(percent[0]) else "{:.1f} [{:.1f}, {:.1f}]".format(*percent)


if __name__ == "__main__":
    main()
