"""Distillation methods of texts side by side: the found student at a quarter of a MiniLM's MACs, trained by each.

    python experiments/text_methods.py [--budget 0.255] [--seeds 3] [--methods NAME ...] [--run DIR] [--out FOLDER]

Teacher, texts and student are those of text_space.py (the same --run goes on from it): the found arch with repaired
units of the teacher's weights, before a student's own repair, so that methods on layers have something to teach. Every
training sees the same texts in the same order, 2 epochs, rate 1e-4, and differs in its loss alone, each method at its
defaults; `kd` at temperature 2. ``finetune`` is plain training on the labels. Methods on layers run the teacher live,
the others read its stored answers. A row is written when it is known; the same command goes on. The gain is over `kd`,
seed by seed and text by text, with a 95 % interval over texts and seeds.

Hardware: two AMD EPYC cores that other work shared, torch 2.14.1, transformers 5.24, one thread. Results:
results/text_methods/.
"""

from __future__ import annotations

import argparse
import time
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from paired_table import packed, unpacked
from text_space import LR, TESTED, TRAINING, Trial, opened

import nas_kd
from nas_kd.analyse.paired import paired_difference
from nas_kd.runs.files import CsvLog, read_frame
from nas_kd.runtime.device import Runtime
from nas_kd.train.measured import measure

OUT = Path(__file__).parent / "results" / "text_methods"
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "kd": ("kd", {"temperature": 2.0}),
    "finetune": ("ce", {}),
    "logit_mse": ("logit_mse", {}),
    "distilbert": ("distilbert", {}),
    "pkd": ("pkd", {}),
    "tinybert": ("tinybert", {}),
    "minilm": ("minilm", {}),
    "mobilebert": ("mobilebert", {}),
    "cofi": ("cofi", {}),
}
LIVE = ("distilbert", "pkd", "tinybert", "minilm", "mobilebert", "cofi")  # they compare layers


def main() -> None:
    """Train what is not trained yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=0.255)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS), metavar="NAME")
    parser.add_argument("--run", type=Path, default=Path("runs/text_space"))
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--quick", action="store_true", help="200 texts, three methods, one seed, to see that it works")
    options = parser.parse_args()
    out, seeds, methods, texts, tested = options.out, options.seeds, options.methods, 4000, TESTED
    if options.quick:
        out, seeds, methods, texts, tested = options.run / "methods", 1, ["kd", "pkd", "cofi"], 200, 200
    out.mkdir(parents=True, exist_ok=True)
    data, teacher, run = opened(options.run, texts, tested)
    trial = Trial(data, teacher, options.budget, run)
    file = out / "students.csv"
    log, hits = CsvLog(file), CsvLog(out / "hits.csv")
    task = nas_kd.Classification()
    known = {(row["method"], int(row["seed"])) for row in log.rows()}
    for seed, name in product(range(seeds), methods):
        if (name, seed) in known:
            continue
        method, settings = METHODS[name]
        network = trial.net.extract(trial.arch, {})
        begun = time.process_time()
        how = TRAINING | {"method": method, "method_settings": settings, "lr": LR, "warmup_epochs": 0.1, "test": False}
        source = None if name == "finetune" else teacher if name in LIVE else trial.logits
        student: Any = nas_kd.retrain(network, source, data, seed=seed, **how)
        spent = time.process_time() - begun
        metrics, logits = measure(student, data.test, task, Runtime(), None)
        right = packed(task.scores(logits, data.test.labels))
        hits.append({"method": name, "seed": seed, "hits": right})  # before its row
        accuracy = {"test_accuracy": metrics["accuracy"], "select_accuracy": student.info["metrics"]["select_accuracy"]}
        log.append({"method": name, "seed": seed} | accuracy | {"training_cpu_seconds": round(spent, 1)})
        print(log.rows()[-1], flush=True)
    summary = summarised(read_frame(file), read_frame(hits.path)).round(4)
    summary.to_csv(out / "summary.csv", index=False)
    print(summary.to_string())


def summarised(frame: pd.DataFrame, hits: pd.DataFrame) -> pd.DataFrame:
    """Return a row a method: its accuracy over seeds, and its gain over `kd` of the same seeds and texts."""
    right = hits.drop_duplicates(["method", "seed"], keep="last").set_index(["method", "seed"]).hits
    rows = []
    for name, group in frame.groupby("method", sort=False):
        row = {"method": name, "seeds": len(group)}
        row |= {"test_accuracy": group.test_accuracy.mean(), "spread": group.test_accuracy.std()}
        row |= {"training_cpu_seconds": group.training_cpu_seconds.mean()}
        seeds = sorted(set(group.seed) & set(frame[frame.method == "kd"].seed))
        if name != "kd" and seeds:
            gain = paired_difference(*([unpacked(right[each, seed]) for seed in seeds] for each in (name, "kd")))
            row |= {"gain": gain.mean, "low": gain.interval[0], "high": gain.interval[1], "paired_seeds": len(seeds)}
        rows.append(row)
    return pd.DataFrame(rows).sort_values("test_accuracy", ascending=False)


if __name__ == "__main__":
    main()
