"""Claim to test: which ratings and which shared weights rank archs as their own distilled trainings do?

    OMP_NUM_THREADS=1 nice python experiments/systems.py [--archs 16] [--quick]

Digits, the space `digits`, a ResNet-14 (12 epochs) as the teacher. The truth is the accuracy on `select` and `test`
together of archs drawn at random, each trained by `kd` for 4 epochs from one seed. Against it stand sums of blockwise
ratings (by the teacher: DNA; by the student that a first round finds: DNA+; by the average of the stages themselves:
DNA++), accuracies with shared weights of several training rules, and the MACs. With 16 archs a tau has a standard error
of about 0.17: only large gaps say anything. A row a system goes to results/systems when it is known.

Hardware: one thread on two cores that other work shared (CPU seconds are process time). Numbers: results/systems and
the README beside this.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import pandas as pd
from scipy.stats import kendalltau
from stand_in import HELP, QUICK

import nas_kd
from nas_kd.distill.tasks import task_of
from nas_kd.runtime.device import Runtime
from nas_kd.space import Arch
from nas_kd.space.rows import arch_of_rows, stage_scores
from nas_kd.train.evaluate import evaluate_archs

OUT = Path(__file__).parent / "results" / "systems"
RULES: dict[str, dict[str, Any]] = {
    "sandwich": {"rule": "sandwich"},
    "bestup, by loss": {"rule": "bestup"},
    "bestup, by predictor": {"rule": "bestup", "chooser": "predictor", "candidates": 20},
    "cream, agreement": {"rule": "cream"},
    "cream, meta network": {"rule": "cream", "matching": "meta"},
}


def main() -> None:
    """Train the truth, rate, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archs", type=int, default=16)
    parser.add_argument("--quick", action="store_true", help=HELP)
    options = parser.parse_args()
    quick = options.quick
    run, out = (QUICK / "systems_run", QUICK / "systems") if quick else (Path("runs/systems"), OUT)
    count, epochs, shared = (4, 1, 2) if quick else (options.archs, 4, 8)
    runtime = Runtime("cpu", threads=1)
    data = nas_kd.load_data("digits", rate=0.15, select=0.15, views=8, subset=300 if quick else None)
    teacher = nas_kd.train_teacher(
        "cifar_resnet14", data, run=run, epochs=3 * epochs, lr=0.1, batch_size=64, runtime=runtime
    )
    space = nas_kd.load_space("digits")
    shape: dict[str, Any] = {"resolution": data.resolution, "in_chans": 1, "num_classes": data.num_classes}
    archs = list(dict.fromkeys(space.sample(seed) for seed in range(2 * count)))[:count]
    how: dict[str, Any] = {"method": "kd", "epochs": epochs, "batch_size": 64, "runtime": runtime}

    def trained(arch: Arch) -> float:
        student: Any = nas_kd.retrain(arch, teacher, data, space=space, run=run, folder=f"truth/{arch.key}", **how)
        metrics, sizes = student.info["metrics"], (len(data.select), len(data.test))
        right = metrics["select_accuracy"] * sizes[0] + metrics["test_accuracy"] * sizes[1]
        return 100 * right / sum(sizes)

    truth = [trained(arch) for arch in archs]
    out.mkdir(parents=True, exist_ok=True)
    costs = [space.cost(arch, **shape).macs for arch in archs]
    rows = pd.DataFrame({"arch": [arch.label for arch in archs], "macs": costs, "truth_percent": truth})
    summary: list[dict[str, Any]] = []

    def note(name: str, scores: list[float], seconds: float, found: Arch | None = None) -> None:
        """Write a system's scores, higher being better, and what came of the arch it finds at half of the MACs."""
        rows[name] = scores
        row: dict[str, Any] = {"system": name, "tau": kendalltau(scores, truth).statistic, "cpu_seconds": seconds}
        row |= {} if found is None else {"found_percent": trained(found), "found_macs": space.cost(found, **shape).macs}
        summary.append(row)
        rows.round(4).to_csv(out / "archs.csv", index=False)
        pd.DataFrame(summary).round(3).to_csv(out / "summary.csv", index=False)
        print(summary[-1], flush=True)

    note("MACs", [float(cost) for cost in costs], 0.0)
    upper = {"macs": space.cost(space.largest(), **shape).macs // 2}
    nets: dict[str, nas_kd.Supernet] = {}
    for name, settings in RULES.items():
        begun = process_time()
        net = nas_kd.Supernet(space, num_classes=data.num_classes, in_chans=1)
        nas_kd.train_supernet(net, data, epochs=shared, lr=0.05, batch_size=64, runtime=runtime, **settings)
        found = evaluate_archs(net, archs, data, task_of(data))
        nets[name] = net
        note(f"supernet: {name}", found, process_time() - begun)
    net = nets["sandwich"]
    rating: dict[str, Any] = {"epochs": min(5, shared), "batch_size": 64, "lr": 0.03}
    student = nas_kd.RetrainConfig(method="kd", epochs=epochs, batch_size=64)

    def further() -> nas_kd.Teacher:
        config = nas_kd.BlockwiseConfig(**rating)
        return nas_kd.teacher_rounds(
            net, teacher, data, 2, upper=upper, rating=config, training=student, runtime=runtime
        )

    sources: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
        "DNA": (lambda: teacher, {}),
        "DNA+": (further, {}),
        "DNA, cosine": (lambda: teacher, {"error": "cosine"}),
        "DNA++": (lambda: None, {"source": "average", "error": "cosine"}),
        "DNA++, scratch": (lambda: None, {"source": "average", "error": "cosine", "init": "scratch"}),
    }
    for name, (source, settings) in sources.items():
        begun = process_time()
        tables = nas_kd.rate_blockwise(net, source(), data, runtime=runtime, **rating | settings)
        seconds = process_time() - begun
        of_arch = stage_scores(space, tables)
        front = nas_kd.exact_front(tables, budget="macs")
        best = front[front["macs"] <= upper["macs"]].sort_values("score").iloc[0]
        labels = [best[f"row_{stage}"] for stage in range(1, len(tables) + 1)]
        note(f"stages: {name}", [-sum(of_arch(arch)) for arch in archs], seconds, arch_of_rows(space, tables, labels))
    print(pd.DataFrame(summary).round(2).to_string(index=False))


if __name__ == "__main__":
    main()
