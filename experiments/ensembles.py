"""Claim to test: is a grown ensemble of found students worth its cost, against one student of the same MACs?

Digits, `cifar_resnet14`, repaired cuts of it. `grow_ensemble` (AdaNAS) takes the 9 subnets of the lowest KL at 13.5 %
of the teacher's MACs and grows up to three members; each training is 3 epochs of `kd` from inherited weights. Against
it stand the one of the lowest KL alone, the plain mean of the probabilities of the three best, trained alike, and one
student found at three times the MACs. Accuracy on the 344 test images (one is 0.29 points); CPU seconds of trainings.

Seeds: 0, 1, 2 of the trainings; teacher, repaired cuts and search are made once.
Numbers, means over seeds with their standard deviation (results/ensembles):

| network | accuracy % | MACs | members | CPU s |
|---|---|---|---|---|
| one student | 97.77 (0.61) | 203,392 | 1 | 1.0 |
| mean of three | 97.77 (0.17) | 619,392 | 3 | 2.7 |
| grown (AdaNAS) | 97.19 (0.67) | 477,653 | 2.3 | 8.7 |
| one student of three times the MACs | 98.26 (0.58) | 645,760 | 1 | 1.3 |

The claim does not hold here: a grown ensemble is no better than one of its members, and one student of its MACs is
ahead of both ensembles, for a seventh of the time.

Command: OMP_NUM_THREADS=1 nice python experiments/ensembles.py [--quick]; writes experiments/results/ensembles.
Hardware: two AMD EPYC cores that other work shared, torch 2.14.1, one thread.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import pandas as pd
import torch
from engines import arch_of
from stand_in import HELP, QUICK
from torch import nn

import nas_kd
from nas_kd.distill.tasks import task_of
from nas_kd.export.ensemble import Ensemble
from nas_kd.runtime.device import Runtime
from nas_kd.searcher.trials import evaluated
from nas_kd.space import Arch
from nas_kd.train.measured import measure

RESULTS = Path(__file__).parent / "results" / "ensembles"
SHARE, MEMBERS, CANDIDATES = 0.135, 3, 9


def main() -> None:
    """Search, train, join, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=HELP)
    quick = parser.parse_args().quick
    run, results = (QUICK / "ensembles", QUICK / "ensembles") if quick else (Path("runs/ensembles"), RESULTS)
    seeds, trials, epochs = (1, 12, 1) if quick else (3, 60, 3)
    runtime = Runtime("cpu", threads=1)
    data = nas_kd.load_data("digits", rate=0.15, select=0.15, subset=400 if quick else None)
    teacher = nas_kd.train_teacher(
        "cifar_resnet14", data, run=run, epochs=2 if quick else 12, lr=0.1, batch_size=32, runtime=runtime
    )
    space = nas_kd.teacher_space(teacher, data)
    net: Any = nas_kd.repair_units(nas_kd.Supernet(space), teacher, data, run=run, runtime=runtime)
    tables = nas_kd.rate_units(net, teacher, data, run=run)
    how = nas_kd.RetrainConfig(method="kd", epochs=epochs, batch_size=32)

    def best(share: float) -> list[Arch]:
        """Return the subnets of the lowest KL within a share of the teacher's MACs."""
        settings: dict[str, Any] = {"trials": trials, "tuned": 0, "epochs": 0, "runtime": runtime}
        found = nas_kd.search(net, teacher, data, tables, max_macs=f"{share:.1%}", **settings)
        ranked = evaluated(found.frame()).sort_values("kl", kind="stable")
        return list(dict.fromkeys(arch_of(found, row) for _, row in ranked.iterrows()))[:CANDIDATES]

    few, large = best(SHARE), best(MEMBERS * SHARE)[0]

    def trained(arch: Arch, seed: int, way: str) -> nn.Module:
        folder = f"{way}/{arch.key}_{seed}"  # none is shared, so that each way's seconds are its own
        return nas_kd.retrain(arch, teacher, data, how, space=space, supernet=net, run=run, folder=folder, seed=seed)

    def grown(seed: int) -> nn.Module:
        return nas_kd.grow_ensemble(
            few, teacher, data, how, space=space, supernet=net, size=MEMBERS, run=run / f"grown_{seed}", seed=seed
        )

    def averaged(seed: int) -> nn.Module:
        return Ensemble.of([trained(arch, seed, "mean") for arch in few[:MEMBERS]], torch.full((MEMBERS,), 1 / MEMBERS))

    ways: dict[str, Callable[[int], nn.Module]] = {
        "one student": lambda seed: trained(few[0], seed, "one"),
        "mean of three": averaged,
        "grown (AdaNAS)": grown,
        "one student of three times the MACs": lambda seed: trained(large, seed, "large"),
    }
    shape: dict[str, Any] = {"resolution": data.resolution, "in_chans": 1, "num_classes": data.num_classes}
    macs_of = {arch.key: space.cost(arch, **shape).macs for arch in (*few, large)}
    rows = []
    for seed in range(seeds):
        for name, make in ways.items():
            begun = process_time()
            network: Any = make(seed)
            seconds = process_time() - begun
            found, _ = measure(network, data.test, task_of(data), runtime, None)
            members, macs = 1, macs_of[(large if "times" in name else few[0]).key]
            if isinstance(network, Ensemble):
                members = len(network.members)
                mean = sum(macs_of[arch.key] for arch in few[:MEMBERS])
                macs = network.info["macs"] if name.startswith("grown") else mean  # type: ignore[operator, index]
            measured = {"test_percent": 100 * found["accuracy"], "macs": macs, "members": members}
            rows.append({"way": name, "seed": seed} | measured | {"cpu_seconds": seconds})
            print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    results.mkdir(parents=True, exist_ok=True)
    table.round(3).to_csv(results / "networks.csv", index=False)
    by_way = table.groupby("way", sort=False)
    summary = by_way[["test_percent", "macs", "members", "cpu_seconds"]].mean()
    summary.insert(1, "sd", by_way["test_percent"].std())
    summary.round(3).to_csv(results / "summary.csv")
    print(summary.round(2).to_string())


if __name__ == "__main__":
    main()
